package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
)

type profileCmd struct {
	Function string `arg:"" help:"The function."`
	Seconds  int    `default:"10" placeholder:"N" help:"How long to look (10), up to 300."`
	Output   string `short:"o" type:"path" placeholder:"FILE" help:"Where to put the profile (FUNCTION.pprof)."`
	dataFlag
}

func (profileCmd) Help() string {
	return `Writes where a function spends its time of the processor, for go tool pprof and whatever else reads its format. Only the
function's own code is in it, and only while there are calls: send some meanwhile. It goes on serving as fast as ever.

Examples:
  loam profile orders
  loam profile orders --seconds 60 -o orders.pprof
  go tool pprof -http localhost:0 orders.pprof`
}

func (c profileCmd) Run(ctx context.Context, o out) error {
	d := time.Duration(c.Seconds) * time.Second
	if d <= 0 || d > admin.MaxProfile {
		return &loam.Error{Code: loam.InvalidArgument, Op: fmt.Sprintf("%d seconds", c.Seconds), Hint: "write --seconds 1 to 300"}
	}
	client, err := admin.Dial(c.Data)
	if err != nil {
		return err
	}
	if c.Output == "" {
		c.Output = c.Function + ".pprof"
	}
	var profile bytes.Buffer
	if err := client.Profile(ctx, c.Function, d, &profile); err != nil {
		return err
	}
	if err := os.WriteFile(c.Output, profile.Bytes(), 0o600); err != nil {
		return &loam.Error{Code: loam.PermissionDenied, Op: "profile", Err: err, Hint: "name a file that can be written: -o FILE"}
	}
	fmt.Fprintf(o, "wrote %s; next: go tool pprof -top %[1]s\n", c.Output)
	return nil
}
