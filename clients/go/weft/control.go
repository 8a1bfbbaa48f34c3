package weft

import (
	"context"
	"sync"

	pb "example.com/weft/clients/gen/weft/v1"
)

// control lets messages be taken, or not, as operators say.
type control struct {
	mutex sync.Mutex
	told  sync.Cond // that held has changed
	held  bool
	rest  context.CancelFunc // of whoever takes messages
}

// obey does as operators say, for calls and messages from now on, and answers with what of it this process cannot do.
func (a *Agent) obey(directive *pb.Directive) *pb.Applied {
	settings, applied := directive.GetSettings(), &pb.Applied{Version: directive.Version}
	limit := settings.GetMaxConcurrency()
	if limit == 0 {
		limit = a.MaxConcurrency
	}
	a.load.obey(limit, directive.Hold)
	a.control.obey(directive.Hold != nil)
	for _, other := range []struct {
		name string
		said bool
	}{
		{"timeouts", len(settings.GetTimeouts()) > 0},
		{"model", settings.GetModel() != ""},
		{"prompts", len(settings.GetPrompts()) > 0},
	} {
		if other.said {
			applied.Problems = append(applied.Problems, "this process cannot be set "+other.name+" while it runs")
		}
	}
	return applied
}

func (c *control) obey(held bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.held = held
	if held && c.rest != nil {
		c.rest()
	}
	c.told.Broadcast()
}

// taking waits until messages may be taken. What it returns ends when they may no longer be, or ctx does.
func (c *control) taking(ctx context.Context) context.Context {
	defer context.AfterFunc(ctx, func() {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.told.Broadcast()
	})()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for c.held && ctx.Err() == nil {
		c.told.Wait()
	}
	ctx, c.rest = context.WithCancel(ctx)
	return ctx
}
