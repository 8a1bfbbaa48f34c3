// Package weft makes a gRPC server an agent of the mesh: found by its name, checked, drained, and sent durable messages.
// mesh.go is what speaks with the mesh; the rest is what any gRPC server has.
package weft

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "example.com/weft/clients/gen/weft/v1"
)

// Parts of the mesh.
const (
	registry = "registry"
	broker   = "broker"
)

const (
	firstPause   = 100 * time.Millisecond // doubled up to the last
	lastPause    = 2 * time.Second
	answerWithin = 5 * time.Second        // a registry that hangs is left like one that is gone
	propagation  = 100 * time.Millisecond // callers need to hear of a drain before the port may close
	mostInHand   = 100                    // messages; what one replica holds, the others do not get
	mostBytes    = 16 * 1024 * 1024       // of a request or answer, as everywhere in the mesh
)

// Said again for the same message however often it is tried.
var permanent = []codes.Code{
	codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied, codes.Unauthenticated,
	codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented, codes.DataLoss,
}

var dialOptions = []grpc.DialOption{
	grpc.WithTransportCredentials(insecure.NewCredentials()),
	grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: lastPause}),
	grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(mostBytes)),
	// A peer that hangs is noticed by pings.
	grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second}),
}

// Agent is one instance of an agent.
type Agent struct {
	Name           string        // under which callers find it
	Version        string        // semantic version of its code
	Registry       string        // "host:port"
	Brokers        string        // "host:port" of each, joined by commas; empty: it gets calls only
	Advertise      string        // "IP:port" at which others reach it; empty: that of its listener
	MaxConcurrency uint32        // calls it works on at a time; 0: 1,000
	Grace          time.Duration // how long calls may take when it drains; 0: 10 s
	Ready          func()        // called when callers can find it for the first time

	instance *pb.Instance
	contract *pb.DescriptorSets
	skills   map[string]protoreflect.MethodDescriptor // by path, those that take messages
	load     load
	control  control
	own      *grpc.ClientConn
	ready    sync.Once
	draining context.Context
	stopped  context.Context
}

// Server makes the server to register services with, before Serve.
func (a *Agent) Server(options ...grpc.ServerOption) *grpc.Server {
	if a.MaxConcurrency == 0 {
		a.MaxConcurrency = 1_000
	}
	a.load.limit = a.MaxConcurrency
	a.control.told.L = &a.control.mutex
	return grpc.NewServer(append(options,
		grpc.MaxRecvMsgSize(mostBytes),
		grpc.ChainUnaryInterceptor(a.load.unary), grpc.ChainStreamInterceptor(a.load.stream),
		// Those who call may ping as often as Weft's own do.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
}

// Serve serves, registered, until ctx ends; then it drains: callers are told to go elsewhere, calls and messages in hand
// are finished, the lease ends.
func (a *Agent) Serve(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	if a.Advertise == "" {
		a.Advertise = listener.Addr().String()
	}
	if a.Grace == 0 {
		a.Grace = 10 * time.Second
	}
	if err := a.describe(server); err != nil {
		return err
	}
	checks := health.NewServer()
	for service := range server.GetServiceInfo() {
		checks.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	}
	healthpb.RegisterHealthServer(server, checks)
	var err error
	if a.own, err = grpc.NewClient(listener.Addr().String(), dialOptions...); err != nil {
		return err
	}
	defer a.own.Close()

	failed := make(chan error, 3)
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	watch := func(what func() error) {
		if err := what(); err != nil {
			fail(err)
			failed <- err
		}
	}
	var stop context.CancelFunc
	a.draining = ctx
	a.stopped, stop = context.WithCancel(context.Background())
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { watch(func() error { return server.Serve(listener) }) })
	running.Go(func() { watch(func() error { return a.keep(ctx, registry, []string{a.Registry}, a.hold) }) })
	queue := sync.WaitGroup{}
	if a.Brokers != "" && len(a.skills) > 0 {
		queue.Go(func() { watch(a.takeMessages) })
	}

	<-ctx.Done()
	defer time.AfterFunc(a.Grace, func() { stop(); server.Stop() }).Stop()
	time.Sleep(propagation)
	queue.Wait()
	checks.Shutdown()
	server.GracefulStop()
	stop() // and the lease ends
	running.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// takeMessages handles messages whenever operators let it, until the agent drains.
func (a *Agent) takeMessages() error {
	for {
		taking := a.control.taking(a.draining)
		if err := a.keep(taking, broker, strings.Split(a.Brokers, ","), a.consume); err != nil || a.draining.Err() != nil {
			return err
		}
	}
}

// connected is told when a part of the mesh has taken us, for the first time or again.
func (a *Agent) connected(part string) {
	slog.Info("connected", "part", part, "agent", a.Name, "address", a.Advertise)
	if part == registry && a.Ready != nil {
		a.ready.Do(a.Ready)
	}
}

func instanceID() string {
	return strings.ToLower(rand.Text())
}

// inTurn sends one message after the other, whoever has it to say: gRPC takes one at a time.
func inTurn[M any](send func(M) error) func(M) {
	var mutex sync.Mutex
	return func(message M) {
		mutex.Lock()
		defer mutex.Unlock()
		send(message) // who receives is told of what could not be sent
	}
}

// every does something at intervals until the function it returns is called.
func every(interval time.Duration, what func()) func() {
	ticker, done := time.NewTicker(interval), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				what()
			}
		}
	}()
	return func() { ticker.Stop(); close(done) }
}

// describe fills in what the registry is told: the instance, and the contract of its services.
func (a *Agent) describe(server *grpc.Server) error {
	set, digest, err := contract(server)
	if err != nil {
		return err
	}
	a.contract = &pb.DescriptorSets{Sets: map[string][]byte{digest: set}}
	a.instance = &pb.Instance{
		InstanceId: instanceID(), Agent: a.Name, Address: a.Advertise, Version: a.Version,
		MaxConcurrency: a.MaxConcurrency,
	}
	a.skills = skills(server)
	for service := range server.GetServiceInfo() {
		a.instance.Services = append(a.instance.Services, &pb.ServiceRef{Name: service, DescriptorDigest: digest})
	}
	if len(a.instance.Services) == 0 {
		return fmt.Errorf("%s serves nothing: register a service before Serve", a.Name)
	}
	return err
}
