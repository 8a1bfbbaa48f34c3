package weft

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/weft/clients/gen/weft/v1"
)

const (
	weight  = 0.1 // of a new call in the average latency
	tooMany = "CONCURRENCY_LIMIT"
	paused  = "AGENT_PAUSED"
)

// Said of a call that was not begun.
var refusals = []string{tooMany, paused}

// load counts calls, for heartbeats, and refuses what is too much at a time and what comes while operators pause the agent.
type load struct {
	mutex           sync.Mutex
	limit           uint32
	hold            *pb.Hold // nil: nothing holds the agent back
	inFlight        uint32
	calls, failures uint64
	latency         float64 // seconds
}

func (l *load) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (response any, err error) {
	done, err := l.begin(info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer func() { done(err) }()
	return next(ctx, request)
}

func (l *load) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	done, err := l.begin(info.FullMethod)
	if err != nil {
		return err
	}
	defer func() { done(err) }()
	return next(server, stream)
}

func (l *load) begin(method string) (func(error), error) {
	if strings.HasPrefix(method, "/grpc.") { // health checks are no work
		return func(error) {}, nil
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.hold.GetState() == pb.InstanceState_INSTANCE_STATE_PAUSED {
		why := strings.TrimSuffix("An operator has paused the agent: "+l.hold.Reason, ": ")
		return nil, Failure(codes.Unavailable, paused, why+".")
	}
	if l.inFlight >= l.limit {
		why := fmt.Sprintf("This instance works on %d calls already; try again.", l.limit)
		return nil, Failure(codes.ResourceExhausted, tooMany, why)
	}
	l.inFlight++
	began := time.Now()
	return func(err error) {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		l.inFlight--
		l.calls++
		took := time.Since(began).Seconds()
		if l.calls == 1 {
			l.latency = took
		}
		l.latency += weight * (took - l.latency)
		switch status.Code(err) {
		case codes.Unknown, codes.Internal, codes.Unavailable, codes.DataLoss, codes.DeadlineExceeded:
			l.failures++
		}
	}, nil
}

// obey sets how many calls are worked on at a time, and whether any is let in. Those that run go on.
func (l *load) obey(limit uint32, hold *pb.Hold) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.limit, l.hold = limit, hold
}

func (l *load) report() *pb.Load {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return &pb.Load{
		InFlight: l.inFlight, Calls: l.calls, Failures: l.failures,
		LatencyEwma: durationpb.New(time.Duration(l.latency * float64(time.Second))),
	}
}
