package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
)

type invokeCmd struct {
	Target  string   `arg:"" placeholder:"[KIND/]NAME" help:"The function, or app/NAME."`
	Path    string   `arg:"" default:"/" help:"Path and query to ask for (/)."`
	Method  string   `short:"X" placeholder:"METHOD" help:"HTTP method (GET, or POST with --data)."`
	Body    *string  `short:"d" name:"data-body" aliases:"body" placeholder:"TEXT|@FILE|-" help:"Body to send: text, a file's, or standard input's."`
	Header  []string `short:"H" placeholder:"NAME: VALUE" sep:"none" help:"A header to send; may be repeated."`
	Include bool     `short:"i" help:"Print the status and headers too."`
	dataFlag
}

func (invokeCmd) Help() string {
	return `Sends one request to a function or app of a running loam, past all routes, and prints the answer. The exit status is 1
where the answer's status is 400 or more.

Examples:
  loam invoke orders /orders
  loam invoke orders /orders -d '{"item":"apple","count":1}'
  loam invoke app/mailer /healthz -i`
}

func (c invokeCmd) Run(ctx context.Context, o out) error {
	client, err := admin.Dial(c.Data)
	if err != nil {
		return err
	}
	kind, name, ok := strings.Cut(c.Target, "/")
	if !ok {
		kind, name = "function", c.Target
	}
	if !strings.HasPrefix(c.Path, "/") {
		return &loam.Error{Code: loam.InvalidArgument, Op: fmt.Sprintf("path %q", c.Path), Hint: "begin it with /"}
	}
	method, body := c.Method, io.Reader(nil)
	if c.Body != nil {
		if body, err = openBody(*c.Body); err != nil {
			return err
		}
		if method == "" {
			method = http.MethodPost
		}
	}
	header := http.Header{}
	if body != nil {
		header.Set("Content-Type", "application/json")
	}
	for _, h := range c.Header {
		n, v, ok := strings.Cut(h, ":")
		if !ok {
			return &loam.Error{Code: loam.InvalidArgument, Op: fmt.Sprintf("header %q", h), Hint: "write it as 'Name: value'"}
		}
		header.Set(strings.TrimSpace(n), strings.TrimSpace(v))
	}
	res, err := client.Invoke(ctx, kind, name, method, c.Path, header, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if c.Include {
		fmt.Fprintf(o, "%s\n", res.Status)
		if err := res.Header.Write(o); err != nil {
			return err
		}
		fmt.Fprintln(o)
	}
	if _, err := io.Copy(o, res.Body); err != nil {
		return err
	}
	if res.StatusCode >= 400 {
		if !c.Include {
			fmt.Fprintf(o.err, "loam: %s answered %s\n", c.Target, res.Status)
		}
		return silent{}
	}
	return nil
}

func openBody(what string) (io.Reader, error) {
	switch {
	case what == "-":
		return os.Stdin, nil
	case strings.HasPrefix(what, "@"):
		b, err := os.ReadFile(what[1:])
		if err != nil {
			return nil, &loam.Error{Code: loam.NotFound, Op: "body", Err: err, Hint: "name a file that is there, or write the body itself"}
		}
		return bytes.NewReader(b), nil
	}
	return strings.NewReader(what), nil
}
