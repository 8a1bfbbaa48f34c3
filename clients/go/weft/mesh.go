package weft

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/weft/clients/gen/weft/v1"
)

// keep uses a part of the mesh until the agent drains, the next replica when one is lost. Its error is final.
func (a *Agent) keep(part string, addresses []string, use func(conn *grpc.ClientConn, works func()) error) error {
	for pause, n := firstPause, 0; ; n++ {
		conn, err := grpc.NewClient(addresses[n%len(addresses)], dialOptions...)
		if err == nil {
			err = use(conn, func() { pause = firstPause; a.connected(part) })
			conn.Close()
		}
		if status.Code(err) == codes.InvalidArgument {
			return err
		}
		select {
		case <-a.draining.Done(): // whoever is not registered gets no calls, whoever has no stream no messages
			return nil
		case <-time.After(pause/2 + rand.N(pause/2)):
			slog.Warn(part+" lost, going on with the next", "cause", err)
			pause = min(2*pause, lastPause)
		}
	}
}

// hold keeps the agent registered, over one stream: one lease. The next one goes on with the same instance.
func (a *Agent) hold(conn *grpc.ClientConn, works func()) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := pb.NewRegistryServiceClient(conn).Register(ctx)
	if err != nil {
		return err
	}
	answer := func() (*pb.RegisterResponse, error) {
		defer time.AfterFunc(answerWithin, cancel).Stop()
		return stream.Recv() // which tells of what could not be sent, too
	}
	stream.Send(&pb.RegisterRequest{Message: &pb.RegisterRequest_Registration{
		Registration: &pb.Registration{Instances: []*pb.Instance{a.instance}}}})
	first, _ := answer() // an error is told again
	if len(first.GetGranted().GetWantedDigests()) > 0 {
		stream.Send(&pb.RegisterRequest{Message: &pb.RegisterRequest_Descriptors{Descriptors: a.contract}})
	}
	if _, err = answer(); err != nil {
		return err
	}
	works() // and from here on callers find it
	heartbeat := time.NewTicker(first.GetGranted().GetHeartbeatInterval().AsDuration())
	defer heartbeat.Stop()
	for draining := a.draining.Done(); err == nil; _, err = answer() {
		select {
		case <-a.stopped.Done():
			stream.Send(&pb.RegisterRequest{Message: &pb.RegisterRequest_Deregistration{Deregistration: &pb.Deregistration{}}})
			stream.CloseSend() // the registry ends the stream when it has taken this
		case <-draining: // callers go elsewhere from now on
			draining = nil
			stream.Send(&pb.RegisterRequest{Message: &pb.RegisterRequest_StateChange{
				StateChange: &pb.StateChange{State: pb.InstanceState_INSTANCE_STATE_DRAINING}}})
		case <-heartbeat.C:
			stream.Send(&pb.RegisterRequest{Message: &pb.RegisterRequest_Report{
				Report: &pb.LoadReport{Loads: map[string]*pb.Load{a.instance.InstanceId: a.load.report()}}}})
		}
	}
	return err
}

// consume handles the messages of the agent's queue, over one stream. What is not settled when that breaks is delivered
// again at once, to the next stream of this session or to another replica: at least once.
func (a *Agent) consume(conn *grpc.ClientConn, works func()) error {
	ctx, cancel := context.WithCancel(a.stopped)
	defer cancel() // whoever still handles a message of this stream gives up
	stream, err := pb.NewBrokerServiceClient(conn).Consume(ctx)
	if err != nil {
		return err
	}
	inHand, handling, mutex := map[string]bool{}, sync.WaitGroup{}, sync.Mutex{}
	say := func(frame *pb.ConsumeRequest, settled string) {
		mutex.Lock()
		defer mutex.Unlock()
		delete(inHand, settled)
		stream.Send(frame)
	}
	say(&pb.ConsumeRequest{Credit: mostInHand, Open: &pb.ConsumeOpen{
		Queue: a.Name, Consumer: a.instance.InstanceId, Session: a.instance.InstanceId, Declare: true}}, "")
	defer context.AfterFunc(a.draining, func() { // settle what is in hand, then leave
		handling.Wait()
		say(&pb.ConsumeRequest{Leave: true}, "")
		stream.CloseSend() // the broker ends the stream when all is safe
	})()
	for {
		frame, err := stream.Recv()
		if err != nil || (frame.Draining && a.draining.Err() == nil) {
			return err
		}
		if frame.Opened != nil {
			works()
			defer every(frame.Opened.VisibilityTimeout.AsDuration()/3, func() { // handlers may take longer than that
				mutex.Lock()
				defer mutex.Unlock()
				stream.Send(&pb.ConsumeRequest{Extensions: slices.Collect(maps.Keys(inHand))})
			})()
		}
		for _, delivery := range frame.Deliveries {
			if a.draining.Err() != nil { // it was not begun, which is no attempt
				say(&pb.ConsumeRequest{Nack: []*pb.Nack{{LeaseId: delivery.LeaseId, Unused: true}}}, "")
				continue
			}
			mutex.Lock()
			inHand[delivery.LeaseId] = true
			mutex.Unlock()
			handling.Go(func() { say(a.settle(ctx, conn, delivery), delivery.LeaseId) })
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
	case reason(failed) == tooMany: // which is no attempt
		frame.Nack = []*pb.Nack{{LeaseId: lease, Error: failed.Message(), Unused: true, Delay: durationpb.New(firstPause)}}
	default:
		frame.Nack = []*pb.Nack{{LeaseId: lease, Error: failed.Message()}}
	}
	return frame
}
