// A client of the mesh in Go: finds an agent by its name, and shows what a team needs to know of a call.
//
//	export GRPC_XDS_BOOTSTRAP_CONFIG=$(weft xds-bootstrap)
//	bin/client --agent echo
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"sync"
	"time"

	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds" // makes the scheme xds: known
	"google.golang.org/protobuf/types/known/durationpb"

	echov1 "example.com/weft/clients/gen/weft/echo/v1"
)

func main() {
	agent := flag.String("agent", "echo", "name of the agent")
	span := flag.Duration("for", 3*time.Second, "how long to call it in the end")
	flag.Parse()
	if err := run(*agent, *span); err != nil {
		log.Fatal(err)
	}
}

func run(agent string, span time.Duration) error {
	// The registry tells where the agent is and which of its methods may be tried again; it is asked no more per call.
	conn, err := grpc.NewClient("xds:///"+agent, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	echo := echov1.NewEchoServiceClient(conn)
	for _, show := range []func(echov1.EchoServiceClient) error{unary, stream, deadline, errorDetails, trace} {
		if err := show(echo); err != nil {
			return err
		}
	}
	return calls(echo, span)
}

func unary(echo echov1.EchoServiceClient) error {
	// The first call waits until the agent is found.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	said, err := echo.Say(ctx, &echov1.SayRequest{Text: "hello"})
	tell("unary", fields{"text": said.GetText(), "instance": said.GetInstance()})
	return err
}

func stream(echo echov1.EchoServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	answers, err := echo.Repeat(ctx, &echov1.RepeatRequest{Text: "again", Count: 3})
	if err != nil {
		return err
	}
	numbers := []int32{}
	for {
		answer, err := answers.Recv()
		if errors.Is(err, io.EOF) {
			tell("stream", fields{"numbers": numbers})
			return nil
		}
		if err != nil {
			return err
		}
		numbers = append(numbers, answer.Number)
	}
}

func deadline(echo echov1.EchoServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := echo.Say(ctx, &echov1.SayRequest{Delay: durationpb.New(5 * time.Second)})
	tell("deadline", fields{"code": code(err), "ms": time.Since(began).Milliseconds()})
	return nil
}

// errorDetails reads what an error says beyond its code: the reason for programs, and which field is wrong.
func errorDetails(echo echov1.EchoServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := echo.Say(ctx, &echov1.SayRequest{FailWith: 99})
	found := fields{"code": code(err)}
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			found["reason"], found["domain"] = detail.Reason, detail.Domain
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				found["field"], found["description"] = violation.Field, violation.Description
			}
		}
	}
	tell("error", found)
	return nil
}

// trace sends a W3C trace context, as instrumentation of OpenTelemetry would: the agent's span joins the trace.
func trace(echo echov1.EchoServiceClient) error {
	ids := make([]byte, 24)
	rand.Read(ids)
	traceID := hex.EncodeToString(ids[:16])
	traceparent := fmt.Sprintf("00-%s-%s-01", traceID, hex.EncodeToString(ids[16:]))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := echo.Say(metadata.AppendToOutgoingContext(ctx, "traceparent", traceparent), &echov1.SayRequest{})
	tell("trace", fields{"trace_id": traceID})
	return err
}

// calls goes on calling. Say is declared idempotent, so the channel itself tries it again when a replica dies.
func calls(echo echov1.EchoServiceClient, span time.Duration) error {
	var mutex sync.Mutex
	var callers sync.WaitGroup
	made, failed, instances := 0, []string{}, map[string]int{}
	one := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		said, err := echo.Say(ctx, &echov1.SayRequest{Text: "x", Delay: durationpb.New(10 * time.Millisecond)})
		mutex.Lock()
		defer mutex.Unlock()
		made++
		if err != nil {
			failed = append(failed, err.Error())
			return
		}
		if instances[said.Instance]++; instances[said.Instance] == 1 {
			tell("met", fields{"instance": said.Instance})
		}
	}
	end := time.Now().Add(span)
	for range 4 {
		callers.Go(func() {
			for time.Now().Before(end) {
				one()
			}
		})
	}
	callers.Wait()
	tell("calls", fields{"made": made, "failed": failed, "instances": instances})
	return nil
}

type fields map[string]any

// tell prints a result as a line of JSON.
func tell(step string, found fields) {
	found["step"] = step
	json.NewEncoder(os.Stdout).Encode(found)
}

// code is the canonical name, as every other language has it.
func code(err error) string {
	return rpccode.Code(status.Code(err)).String()
}
