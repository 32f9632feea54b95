package policy

import (
	"crypto/x509"
	"slices"
	"strings"

	"github.com/loam-run/loam"
)

// MTLSConfig says which client certificates may call.
type MTLSConfig struct {
	Required bool     // who shows none is refused; else it passes, and authz may ask
	Subjects []string // common names that are let pass; "*.example.com" what ends so
	SANs     []string // DNS names, URIs, addresses and mails, likewise; where both lists are empty, every certificate passes
	Told     Told
}

// MTLS lets requests pass by the certificate of their connection, which the listener has verified (Request.Peer).
func MTLS(c MTLSConfig) loam.Policy {
	none := refusal(loam.Unauthenticated, "mtls", "no client certificate was shown", "connect with a certificate that the listener's authorities have signed")
	other := refusal(loam.PermissionDenied, "mtls", "the client certificate is not one of those that may call", "add its name to mtls.sans or mtls.subjects")
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			switch {
			case req.Peer == nil || len(req.Peer.Chain) == 0:
				if c.Required {
					c.Told.of(req, Unauthenticated)
					return nil, none
				}
			case !c.takes(req.Peer.Chain[0]):
				c.Told.of(req, Forbidden)
				return nil, other
			}
			return next.Serve(req)
		})
	}
}

func (c *MTLSConfig) takes(cert *x509.Certificate) bool {
	if len(c.Subjects) == 0 && len(c.SANs) == 0 {
		return true
	}
	return matches(c.Subjects, cert.Subject.CommonName) || slices.ContainsFunc(names(cert), func(name string) bool { return matches(c.SANs, name) })
}

// names are the subject alternative names of a certificate.
func names(cert *x509.Certificate) []string {
	all := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, u := range cert.URIs {
		all = append(all, u.String())
	}
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// matches tells whether one of patterns takes name: it is the name, or has a * in place of its beginning or its end.
func matches(patterns []string, name string) bool {
	return name != "" && slices.ContainsFunc(patterns, func(p string) bool {
		if end, ok := strings.CutPrefix(p, "*"); ok {
			return len(name) > len(end) && strings.HasSuffix(name, end)
		}
		if begin, ok := strings.CutSuffix(p, "*"); ok {
			return len(name) > len(begin) && strings.HasPrefix(name, begin)
		}
		return p == name
	})
}
