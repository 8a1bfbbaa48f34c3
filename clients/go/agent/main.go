// The agent echo in Go: serves weft.echo.v1.EchoService like Weft's own, by calls and durable messages.
package main

import (
	"context"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	echov1 "example.com/weft/clients/gen/weft/echo/v1"
	"example.com/weft/clients/weft"
)

func main() {
	agent := &weft.Agent{Version: "1.0.0"}
	flag.StringVar(&agent.Name, "agent", "echo", "name under which callers find it")
	flag.StringVar(&agent.Registry, "registry", "127.0.0.1:7070", "address of the registry")
	flag.StringVar(&agent.Brokers, "brokers", "127.0.0.1:7072", "addresses of brokers, joined by commas; empty: calls only")
	flag.StringVar(&agent.Advertise, "advertise", "", "IP:port at which others reach it, by default where it listens")
	concurrency := flag.Uint("concurrency", 1_000, "calls it works on at a time")
	listen := flag.String("listen", "127.0.0.1:0", "address to serve at")
	flag.Parse()
	agent.MaxConcurrency = uint32(*concurrency)
	agent.Ready = func() { slog.Info("ready", "agent", agent.Name, "address", agent.Advertise) }
	if err := run(agent, *listen); err != nil {
		slog.Error("stopped", "cause", err)
		os.Exit(1)
	}
}

func run(agent *weft.Agent, listen string) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := agent.Server()
	echov1.RegisterEchoServiceServer(server, &echo{instance: "go-" + listener.Addr().String()})
	// The first signal drains, the second ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return agent.Serve(ctx, server, listener)
}
