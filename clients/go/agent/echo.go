package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	echov1 "example.com/weft/clients/gen/weft/echo/v1"
	weftv1 "example.com/weft/clients/gen/weft/v1"
	"example.com/weft/clients/weft"
)

const (
	mostPause = 60 * time.Second
	mostCount = 100_000
)

// echo says back what it is told.
type echo struct {
	echov1.UnimplementedEchoServiceServer
	instance string
}

func (e *echo) Say(ctx context.Context, request *echov1.SayRequest) (*echov1.SayResponse, error) {
	answer := &echov1.SayResponse{Text: request.Text, Instance: e.instance, Caller: caller(ctx)}
	if deadline, named := ctx.Deadline(); named {
		answer.TimeLeft = durationpb.New(time.Until(deadline))
	}
	if err := pause(ctx, "delay", request.Delay); err != nil {
		return nil, err
	}
	return answer, fail("fail_with", request.FailWith)
}

func (e *echo) SayOnce(ctx context.Context, request *echov1.SayOnceRequest) (*echov1.SayOnceResponse, error) {
	said, err := e.Say(ctx, request.GetSay())
	return &echov1.SayOnceResponse{Said: said}, err
}

func (e *echo) Repeat(request *echov1.RepeatRequest, stream echov1.EchoService_RepeatServer) error {
	if request.Count < 0 || request.Count > mostCount {
		return invalid("count", "must be 0 to 100000")
	}
	for number := range request.Count {
		if err := pause(stream.Context(), "pause", request.Pause); err != nil {
			return err
		}
		if err := stream.Send(&echov1.RepeatResponse{Text: request.Text, Number: number}); err != nil {
			return err
		}
	}
	return fail("fail_with", request.FailWith)
}

func (e *echo) Gather(stream echov1.EchoService_GatherServer) error {
	answer := &echov1.GatherResponse{}
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(answer)
		}
		if err != nil {
			return err
		}
		answer.Texts = append(answer.Texts, request.Text)
	}
}

func (e *echo) Talk(stream echov1.EchoService_TalkServer) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&echov1.TalkResponse{Text: request.Text}); err != nil {
			return err
		}
	}
}

// caller is who calls, as the gateway or another agent found out. Whoever can reach this port can say so as well:
// agents that must be sure check the signature (docs/identity.md).
func caller(ctx context.Context) string {
	said := metadata.ValueFromIncomingContext(ctx, "weft-identity-bin")
	identity := &weftv1.Identity{}
	if len(said) == 0 || proto.Unmarshal([]byte(said[0]), identity) != nil {
		return ""
	}
	return identity.Subject
}

func pause(ctx context.Context, field string, span *durationpb.Duration) error {
	if span.AsDuration() < 0 || span.AsDuration() > mostPause {
		return invalid(field, "must be 0 to 60 s")
	}
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-time.After(span.AsDuration()):
		return nil
	}
}

func fail(field string, code int32) error {
	if code < 0 || code > 16 {
		return invalid(field, "must be 0 to 16")
	}
	if code == 0 {
		return nil
	}
	return weft.Failure(codes.Code(code), weft.CodeName(codes.Code(code)), "The caller asked for this failure.")
}

func invalid(field, why string) error {
	return weft.Failure(codes.InvalidArgument, "INVALID_ARGUMENT", why, field)
}
