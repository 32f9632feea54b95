package resource

import "time"

// A Service is one name over endpoints elsewhere. It has one of Endpoints, DNS, Registry and Subset.
type Service struct {
	Endpoints    []Endpoint    `yaml:"endpoints"`
	DNS          *DNS          `yaml:"dns"`
	Registry     *Registry     `yaml:"registry"`
	Subset       *Subset       `yaml:"subset"` // with none of what follows: that is the other service's
	Protocol     string        `yaml:"protocol" enum:"http,h2c,grpc,tcp"`
	TLS          *UpstreamTLS  `yaml:"tls"`
	LoadBalancer LoadBalancer  `yaml:"loadBalancer"`
	SlowStart    time.Duration `yaml:"slowStart"` // in which a new endpoint comes to its full share; 0: at once
	Health       ServiceHealth `yaml:"health"`
	Pool         Pool          `yaml:"pool"`
}

// An Endpoint is one of a list.
type Endpoint struct {
	Address string            `yaml:"address" need:"address: 10.0.0.1:8080"`
	Weight  int               `yaml:"weight"`
	Zone    string            `yaml:"zone"`   // where it stands
	Labels  map[string]string `yaml:"labels"` // for subsets
}

// DNS looks endpoints up by name: every address of it, or what its SRV records point at.
type DNS struct {
	Name    string        `yaml:"name" need:"name: orders.internal"`
	Port    int           `yaml:"port"`    // none: the SRV records of Name say it
	Refresh time.Duration `yaml:"refresh"` // after so long it is looked up again
}

// Registry takes the endpoints from the embedded registry.
type Registry struct {
	Name string `yaml:"name"` // they are registered by; default: the service's
}

// A Subset is the endpoints of another service that have all of Labels.
type Subset struct {
	Service string            `yaml:"service" need:"service: orders"`
	Labels  map[string]string `yaml:"labels"`
}

// UpstreamTLS is how endpoints are spoken to in TLS. Files are relative to the file that declares them.
type UpstreamTLS struct {
	CA         string `yaml:"ca"`         // PEM file of authorities; empty: the system's
	Cert       string `yaml:"cert"`       // PEM file of our own certificate, where they ask for one
	Key        string `yaml:"key"`        // and of its key
	ServerName string `yaml:"serverName"` // asked for and verified; empty: the endpoint's host
	Insecure   bool   `yaml:"insecure"`   // verify nothing
}

// A LoadBalancer picks an endpoint.
type LoadBalancer struct {
	Algorithm string  `yaml:"algorithm" enum:"least-request,round-robin,random,peak-ewma,ring-hash,maglev"`
	HashOn    *HashOn `yaml:"hashOn"` // of ring-hash and maglev
	Zone      string  `yaml:"zone"`   // where we stand: endpoints there are preferred while they can carry half of their share; empty: all are equal
}

// HashOn says what of a request picks its endpoint: one of these.
type HashOn struct {
	Header string `yaml:"header"`
	Cookie string `yaml:"cookie"`
	Query  string `yaml:"query"`
	Source bool   `yaml:"source"` // the client's address
}

// ServiceHealth says how endpoints that fail are found.
type ServiceHealth struct {
	Active  *ActiveHealth  `yaml:"active"`
	Passive *PassiveHealth `yaml:"passive"`
	// PanicBelow: with fewer of the endpoints well than this, requests go to all. 0: only where none is.
	PanicBelow Percent `yaml:"panicBelowPercent"`
}

// ActiveHealth asks endpoints how they are.
type ActiveHealth struct {
	Type      string        `yaml:"type" enum:"http,grpc,tcp"`
	Path      string        `yaml:"path"`    // of http
	Service   string        `yaml:"service"` // of grpc's health protocol; empty: the server as a whole
	Interval  time.Duration `yaml:"interval"`
	Timeout   time.Duration `yaml:"timeout"`
	Healthy   int           `yaml:"healthy"`   // so many good answers bring it back
	Unhealthy int           `yaml:"unhealthy"` // so many bad ones take it out
	Status    []int         `yaml:"status"`    // good answers of http; none: 200 to 299
}

// PassiveHealth takes endpoints out for what requests see of them.
type PassiveHealth struct {
	ConsecutiveErrors int           `yaml:"consecutiveErrors"` // so many in a row; 0: not counted
	Ratio             Percent       `yaml:"ratio"`             // of errors in Interval; 0: not counted
	MinRequests       int           `yaml:"minRequests"`       // in Interval, before Ratio counts
	Interval          time.Duration `yaml:"interval"`
	Ejection          time.Duration `yaml:"ejection"` // out for so long, times how often it was
	MaxEjected        Percent       `yaml:"maxEjectedPercent"`
}

// Pool bounds the connections to each endpoint.
type Pool struct {
	MaxConnections int           `yaml:"maxConnections"`
	MaxIdle        int           `yaml:"maxIdle"`
	IdleTimeout    time.Duration `yaml:"idleTimeout"`
	ConnectTimeout time.Duration `yaml:"connectTimeout"`
	MaxPending     int           `yaml:"maxPending"` // requests that wait for a connection
}
