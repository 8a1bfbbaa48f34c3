package weft

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/weft/clients/gen/weft/v1"
)

// keep uses a part of the mesh until ctx ends, the next replica when one is lost. Its error is final.
func (a *Agent) keep(ctx context.Context, part string, addresses []string,
	use func(ctx context.Context, conn *grpc.ClientConn, works func()) error) error {
	for pause, n := firstPause, 0; ; n++ {
		conn, err := grpc.NewClient(addresses[n%len(addresses)], dialOptions...)
		if err == nil {
			err = use(ctx, conn, func() { pause = firstPause; a.connected(part) })
			conn.Close()
		}
		if status.Code(err) == codes.InvalidArgument {
			return err
		}
		select {
		case <-ctx.Done(): // whoever is not registered gets no calls, whoever has no stream no messages
			return nil
		case <-time.After(pause/2 + rand.N(pause/2)):
			slog.Warn(part+" lost, going on with the next", "cause", err)
			pause = min(2*pause, lastPause)
		}
	}
}

// hold keeps the agent registered, over one stream: one lease. The next one goes on with the same instance.
func (a *Agent) hold(draining context.Context, conn *grpc.ClientConn, works func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := pb.NewRegistryServiceClient(conn).Register(ctx)
	if err != nil {
		return err
	}
	say, beat := inTurn(stream.Send), time.Duration(0)
	silence := time.AfterFunc(answerWithin, cancel)
	defer silence.Stop()
	say(&pb.RegisterRequest{Message: &pb.RegisterRequest_Registration{
		Registration: &pb.Registration{Instances: []*pb.Instance{a.instance}}}})
	for {
		answer, err := stream.Recv() // which tells of what could not be sent, too
		if err != nil {
			return err
		}
		if granted := answer.GetGranted(); granted != nil {
			beat = granted.HeartbeatInterval.AsDuration()
			if len(granted.WantedDigests) > 0 {
				say(&pb.RegisterRequest{Message: &pb.RegisterRequest_Descriptors{Descriptors: a.contract}})
			}
		}
		silence.Reset(beat + answerWithin)
		if answer.GetRegistered() != nil { // and from here on callers find it
			works()
			defer every(beat, func() {
				say(&pb.RegisterRequest{Message: &pb.RegisterRequest_Report{
					Report: &pb.LoadReport{Loads: map[string]*pb.Load{a.instance.InstanceId: a.load.report()}}}})
			})()
			defer context.AfterFunc(draining, func() { // callers go elsewhere from now on
				say(&pb.RegisterRequest{Message: &pb.RegisterRequest_StateChange{
					StateChange: &pb.StateChange{State: pb.InstanceState_INSTANCE_STATE_DRAINING}}})
			})()
			defer context.AfterFunc(a.stopped, func() { // the registry ends the stream when it has taken this
				say(&pb.RegisterRequest{Message: &pb.RegisterRequest_Deregistration{Deregistration: &pb.Deregistration{}}})
			})()
		}
		if directive := answer.GetDirective(); directive != nil {
			a.instance.Applied = a.obey(directive) // a registry that comes after this one is told, too
			say(&pb.RegisterRequest{Message: &pb.RegisterRequest_Applied{
				Applied: &pb.DirectiveApplied{InstanceId: a.instance.InstanceId, Applied: a.instance.Applied}}})
		}
	}
}

// consume handles the messages of the agent's queue, over one stream. What is not settled when that breaks is delivered
// again at once, to the next stream of this session or to another replica: at least once.
func (a *Agent) consume(taking context.Context, conn *grpc.ClientConn, works func()) error {
	ctx, cancel := context.WithCancel(a.stopped)
	defer cancel() // whoever still handles a message of this stream gives up
	stream, err := pb.NewBrokerServiceClient(conn).Consume(ctx)
	if err != nil {
		return err
	}
	inHand, say := leases{}, inTurn(stream.Send)
	say(&pb.ConsumeRequest{Credit: mostInHand, Open: &pb.ConsumeOpen{
		Queue: a.Name, Consumer: a.instance.InstanceId, Session: a.instance.InstanceId, Declare: true}})
	defer context.AfterFunc(taking, func() { // settle what is in hand, then leave: which is how credit is taken back
		inHand.finish()
		say(&pb.ConsumeRequest{Leave: true}) // the broker ends the stream when all is safe
	})()
	for {
		frame, err := stream.Recv()
		if err != nil || (frame.Draining && taking.Err() == nil) {
			return err
		}
		if frame.Opened != nil {
			works()
			defer every(frame.Opened.VisibilityTimeout.AsDuration()/3, func() { // handlers may take longer than that
				say(&pb.ConsumeRequest{Extensions: inHand.all()})
			})()
		}
		for _, delivery := range frame.Deliveries {
			if !inHand.add(delivery.LeaseId) { // it was not begun, which is no attempt
				say(&pb.ConsumeRequest{Nack: []*pb.Nack{{LeaseId: delivery.LeaseId, Unused: true}}})
				continue
			}
			go func() {
				say(a.settle(ctx, conn, delivery))
				inHand.remove(delivery.LeaseId)
			}()
		}
	}
}

// settle handles a message as a call of the skill it is for, and says what became of it.
func (a *Agent) settle(ctx context.Context, conn *grpc.ClientConn, delivery *pb.MessageDelivery) *pb.ConsumeRequest {
	lease, frame := delivery.LeaseId, &pb.ConsumeRequest{Credit: 1}
	answer, err := a.call(ctx, delivery)
	if err == nil && delivery.Message.ReplyTo != "" {
		_, err = pb.NewBrokerServiceClient(conn).Publish(ctx, &pb.PublishRequest{Message: a.reply(delivery.Message, answer)})
	}
	switch failed := status.Convert(err); {
	case err == nil:
		frame.Complete = []*pb.Completion{{LeaseId: lease, Reply: &pb.Reply{Outcome: &pb.Reply_Payload{Payload: answer}}}}
	case slices.Contains(permanent, failed.Code()): // to the dead letters
		frame.Reject = []*pb.Reject{{LeaseId: lease, Reason: reason(failed), Error: failed.Message(),
			Reply: &pb.Reply{Outcome: &pb.Reply_Error{Error: failed.Proto()}}}}
	case slices.Contains(refusals, reason(failed)): // which is no attempt
		frame.Nack = []*pb.Nack{{LeaseId: lease, Error: failed.Message(), Unused: true, Delay: durationpb.New(firstPause)}}
	default:
		frame.Nack = []*pb.Nack{{LeaseId: lease, Error: failed.Message()}}
	}
	return frame
}
