package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/dialect/dapr"
	"github.com/loam-run/loam/snapshot"
)

// An endpoint is what an HTTPEndpoint comes to.
type endpoint struct {
	dapr.Endpoint
	plan snapshot.HTTPEndpoint
	hash string
}

// applyEndpoints makes the HTTPEndpoints, those anew of which something changed.
func (s *server) applyEndpoints(ctx context.Context, plan *snapshot.Plan) map[string]*endpoint {
	before := map[string]*endpoint{}
	if n := s.neighbours.Load(); n != nil {
		before = n.endpoints
	}
	all := map[string]*endpoint{}
	for _, p := range plan.HTTPEndpoints {
		filled, err := s.fillEndpoint(ctx, p)
		hash := snapshot.Hash(filled)
		was := before[p.Name]
		if err == nil && was != nil && was.hash == hash {
			all[p.Name] = was
			continue
		}
		e := &endpoint{plan: p, hash: hash}
		if err == nil {
			e.Endpoint, err = endpointOf(filled)
		}
		if err != nil {
			s.failures["HTTPEndpoint/"+p.Name] = err
			if was != nil {
				all[p.Name] = was // as it was
			}
			continue
		}
		all[p.Name] = e
	}
	return all
}

func (s *server) fillEndpoint(ctx context.Context, p snapshot.HTTPEndpoint) (snapshot.HTTPEndpoint, error) {
	p.Headers = maps.Clone(p.Headers)
	for _, r := range p.Refs {
		value, err := s.refer(ctx, r, s.components)
		if err != nil {
			return p, &loam.Error{Code: loam.CodeOf(err), Op: "HTTPEndpoint " + p.Name, Err: fmt.Errorf("%s: %w", r.Name, err), Hint: loam.HintOf(err)}
		}
		switch r.Name {
		case "clientTLS.rootCA":
			p.RootCA = sensitive(value)
		case "clientTLS.certificate":
			p.Certificate = sensitive(value)
		case "clientTLS.privateKey":
			p.PrivateKey = sensitive(value)
		default:
			if p.Headers == nil {
				p.Headers = map[string]string{}
			}
			p.Headers[r.Name] = value
		}
	}
	return p, nil
}

func endpointOf(p snapshot.HTTPEndpoint) (dapr.Endpoint, error) {
	e := dapr.Endpoint{BaseURL: p.URL}
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		e.Header.Add(name, p.Headers[name])
	}
	if p.RootCA == "" && p.Certificate == "" {
		return e, nil
	}
	e.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if p.RootCA != "" {
		e.TLS.RootCAs = x509.NewCertPool()
		if !e.TLS.RootCAs.AppendCertsFromPEM([]byte(p.RootCA)) {
			return e, &loam.Error{Code: loam.InvalidArgument, Op: "HTTPEndpoint " + p.Name, Err: errors.New("clientTLS.rootCA holds no certificate"), Hint: "it is PEM"}
		}
	}
	if p.Certificate != "" {
		c, err := tls.X509KeyPair([]byte(p.Certificate), []byte(p.PrivateKey))
		if err != nil {
			return e, &loam.Error{Code: loam.InvalidArgument, Op: "HTTPEndpoint " + p.Name, Err: err, Hint: "certificate and privateKey are PEM, and belong together"}
		}
		e.TLS.Certificates = []tls.Certificate{c}
	}
	return e, nil
}
