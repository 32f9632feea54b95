package policy

import "github.com/loam-run/loam"

// HeadersConfig changes header fields: Remove, then Set, then Add, as the Gateway API's header modifiers do.
type HeadersConfig struct {
	Remove []string
	Set    []loam.Field // in place of all fields of that name
	Add    []loam.Field // beside them
}

func (c *HeadersConfig) apply(h *loam.Header) {
	for _, name := range c.Remove {
		h.Del(name)
	}
	for _, f := range c.Set {
		h.Set(f.Name, f.Value)
	}
	for _, f := range c.Add {
		h.Add(f.Name, f.Value)
	}
}

// RequestHeaders changes the header that the target gets. Set of the name Host changes the authority.
func RequestHeaders(c HeadersConfig) loam.Policy {
	var host string
	rest := c
	rest.Set = nil
	for _, f := range c.Set {
		if len(f.Name) == 4 && (loam.Header{f}).Has("Host") {
			host = f.Value
		} else {
			rest.Set = append(rest.Set, f)
		}
	}
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			rest.apply(&req.Header)
			if host != "" {
				req.Authority = host
			}
			return next.Serve(req)
		})
	}
}

// ResponseHeaders changes the header of answers, those of policies further in too; errors have none.
func ResponseHeaders(c HeadersConfig) loam.Policy {
	return func(next loam.Target) loam.Target {
		return loam.TargetFunc(func(req *loam.Request) (*loam.Response, error) {
			res, err := next.Serve(req)
			if err == nil {
				c.apply(&res.Header)
			}
			return res, err
		})
	}
}
