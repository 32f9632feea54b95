package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/admin"
	"github.com/loam-run/loam/target/service"
)

// dataFlag says which running loam is meant.
type dataFlag struct {
	Data string `env:"LOAM_DATA" type:"path" placeholder:"DIR" help:"Data directory of the running loam (the nearest .loam from here upwards)."`
}

type getCmd struct {
	What   string `arg:"" optional:"" placeholder:"KIND[/NAME]" help:"Only these: function, function/orders, app, service, route, component, subscription, gateway."`
	Output string `short:"o" default:"table" enum:"table,json" help:"How to print: table or json."`
	dataFlag
}

func (getCmd) Help() string {
	return `Shows what the resources came to: ready or not, why not, and what to do.

Examples:
  loam get
  loam get function
  loam get service/users        with its endpoints
  loam get route                with the requests, errors and times of each
  loam get function/orders -o json`
}

func (c getCmd) Run(ctx context.Context, o out) error {
	client, err := admin.Dial(c.Data)
	if err != nil {
		return err
	}
	s, err := client.Status(ctx)
	if err != nil {
		return err
	}
	kind, name, _ := strings.Cut(strings.ToLower(c.What), "/")
	shown := s.Resources[:0]
	for _, r := range s.Resources {
		if matchKind(kind, r.Kind) && (name == "" || name == r.Name) {
			shown = append(shown, r)
		}
	}
	if s.Resources = shown; c.What != "" && len(shown) == 0 {
		return &loam.Error{Code: loam.NotFound, Op: fmt.Sprintf("%q", c.What), Hint: "loam get, with nothing behind it, shows all there is"}
	}
	var services []service.Status
	if kind == "service" || kind == "services" {
		if services, err = client.Services(ctx); err != nil {
			return err
		}
		services = slices.DeleteFunc(services, func(s service.Status) bool { return name != "" && s.Name != name })
	}
	var traffic []admin.Traffic
	if matchKind(kind, "HTTPRoute") && kind != "" {
		if traffic, err = client.Traffic(ctx); err != nil {
			return err
		}
		traffic = slices.DeleteFunc(traffic, func(t admin.Traffic) bool {
			return !slices.ContainsFunc(shown, func(r admin.Resource) bool { return strings.HasPrefix(t.Route+" ", r.Kind+"/"+r.Name+" ") })
		})
	}
	if c.Output == "json" {
		e := json.NewEncoder(o)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			admin.Status
			Services []service.Status `json:"services,omitempty"`
			Traffic  []admin.Traffic  `json:"traffic,omitempty"`
		}{s, services, traffic})
	}
	if c.What == "" {
		fmt.Fprintf(o, "loam %s, process %d, up %s, %s\n\n", s.Version, s.PID, time.Since(s.Started).Round(time.Second), strings.Join(s.URLs, " "))
	}
	w := tabwriter.NewWriter(o, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tNAME\tREADY\tDETAIL")
	for _, r := range s.Resources {
		ready, detail := "yes", r.Detail
		if !r.Ready {
			ready = "no"
			detail = strings.Join(strings.Split(strings.TrimSpace(r.Reason+": "+r.Message), "\n"), "\n\t\t\t")
			if r.Detail != "" {
				detail += "\n\t\t\t" + r.Detail
			}
		}
		for _, warning := range r.Warnings {
			detail += "\n\t\t\twarning: " + warning
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Kind, r.Name, ready, detail)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return errors.Join(printEndpoints(o, services), printTraffic(o, traffic))
}

// printTraffic writes what routes sent to their targets, if they sent anything.
func printTraffic(o io.Writer, all []admin.Traffic) error {
	if len(all) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(o, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nROUTE\tTARGET\tREQUESTS\tERRORS\tIN FLIGHT\tP50\tP99")
	for _, t := range all {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%s\n", t.Route, t.Target, t.Requests, t.Errors, t.InFlight, t.P50, t.P99)
	}
	return w.Flush()
}

// printEndpoints writes a table for each service.
func printEndpoints(o io.Writer, services []service.Status) error {
	for _, s := range services {
		fmt.Fprintf(o, "\n%s, %s\n", s.Name, s.Algorithm)
		w := tabwriter.NewWriter(o, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ENDPOINT\tSTATE\tWEIGHT\tCONNECTIONS\tIN FLIGHT\tREQUESTS\tFAILURES\tLATENCY")
		for _, e := range s.Endpoints {
			state := e.State
			switch {
			case e.State == service.Ejected:
				state += " for " + time.Until(e.EjectedUntil).Round(time.Second).String()
			case e.Share < 1:
				state += fmt.Sprintf(", starting at %.0f%%", 100*e.Share)
			}
			if e.State == service.Unhealthy && e.Reason != "" {
				state += ": " + e.Reason
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", e.Address, state, e.Weight, e.Connections, e.InFlight, e.Requests, e.Failures, e.Latency.Round(time.Microsecond))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// matchKind takes function, functions, Function, and route for HTTPRoute.
func matchKind(asked, kind string) bool {
	kind = strings.ToLower(kind)
	asked = strings.TrimSuffix(asked, "s")
	return asked == "" || asked == kind || asked == strings.TrimPrefix(kind, "http")
}
