// Package redis keeps state, topics, configuration, locks and sequences in Redis 6.2 or newer, on one node, behind
// sentinels or in a cluster. What it stores lies there as Dapr's components of the same name lay it out, so that a fleet
// may be of both, and metadata has Dapr's names:
//
//	state      a hash per key: data, version, and first-write where the key had to be new
//	pubsub     a stream per topic, with the fields data (CloudEvents JSON, or the raw message) and metadata; groups of consumers
//	config     a string per key: the value, then || and its version, then || and its metadata as JSON
//	lock       a string per lock: its owner, with an end
//	sequence   an integer per sequence, as Layotto's has it
//
// A write is as durable as the server makes it: with appendonly yes and appendfsync always it is on disk once it was
// answered, with Redis's default up to a second later. A failover may lose what no replica had.
//
// Calls that come at the same time share a write to the socket and a read from it. Those of tasks, for state on one node
// without TLS, are made on their event loop.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/component"
)

// Factories are the component types of this package.
func Factories() []loam.Factory {
	state := component.New("state.redis", OpenState)
	pubsub := component.New("pubsub.redis", OpenPubsub)
	config := component.New("config.redis", OpenConfig)
	config.Aliases = []string{"configuration.redis"}
	return []loam.Factory{state, pubsub, config, component.New("lock.redis", OpenLock), component.New("sequence.redis", OpenSequence)}
}

// Server is how to reach Redis: what every component's metadata has. A bare number is milliseconds, and -1 switches a
// time off.
type Server struct {
	Host             string `meta:"redisHost" also:"host,url" need:"yes"` // host, host:port, a list of them with commas, or the path of a socket
	Port             int    `meta:"redisPort"`
	Username         string `meta:"redisUsername" also:"username"`
	Password         string `meta:"redisPassword" also:"password"`
	DB               int    `meta:"redisDB"`
	Type             string `meta:"redisType,node"` // node or cluster
	Failover         bool   `meta:"failover"`       // the hosts are sentinels
	MasterName       string `meta:"sentinelMasterName"`
	SentinelUsername string `meta:"sentinelUsername"`
	SentinelPassword string `meta:"sentinelPassword"`

	TLS        bool   `meta:"enableTLS"`
	Insecure   bool   `meta:"insecureSkipTLSVerify"` // take any certificate of the server's
	ClientCert string `meta:"clientCert"`            // PEM
	ClientKey  string `meta:"clientKey"`             // PEM
	EntraID    bool   `meta:"useEntraID" also:"useAzureAD"`

	MaxRetries   int           `meta:"redisMaxRetries,3" also:"maxRetries" min:"-1"` // 0 is the default too; -1: none
	MinRetry     time.Duration `meta:"redisMinRetryInterval,8ms" unit:"1ms" min:"-1"`
	MaxRetry     time.Duration `meta:"redisMaxRetryInterval,512ms" also:"maxRetryBackoff" unit:"1ms" min:"-1"`
	DialTimeout  time.Duration `meta:"dialTimeout,5s" unit:"1ms"`
	ReadTimeout  time.Duration `meta:"readTimeout,3s" unit:"1ms" min:"-1"`
	WriteTimeout time.Duration `meta:"writeTimeout" unit:"1ms" min:"-1"` // as long as ReadTimeout where it is 0
	PoolSize     int           `meta:"poolSize"`                         // connections, beside those of lanes; 0: ten for each processor
	PoolTimeout  time.Duration `meta:"poolTimeout" unit:"1ms"`           // how long to wait for one of them; 0: ReadTimeout and a second
	MinIdle      int           `meta:"minIdleConns"`
	MaxAge       time.Duration `meta:"maxConnAge" unit:"1ms"` // after which a connection is made anew; 0: never
	IdleTimeout  time.Duration `meta:"idleTimeout,5m" unit:"1ms" min:"-1"`
	IdleCheck    time.Duration `meta:"idleCheckFrequency" unit:"1ms" min:"-1"` // read, and of no use: an idle connection is checked when it is taken
}

// Check says what cannot be done, before anything is opened.
func (s *Server) Check() error {
	var errs []error
	if s.EntraID {
		errs = append(errs, errors.New("metadata useEntraID: there is no login by Entra ID; use redisUsername and redisPassword"))
	}
	if s.Type != "node" && s.Type != "cluster" {
		errs = append(errs, fmt.Errorf("metadata redisType: %q is neither node nor cluster", s.Type))
	}
	if s.Failover && s.MasterName == "" {
		errs = append(errs, errors.New("metadata sentinelMasterName: missing, and failover asks sentinels for it"))
	}
	if (s.ClientCert == "") != (s.ClientKey == "") {
		errs = append(errs, errors.New("metadata clientCert, clientKey: one goes with the other"))
	}
	_, err := s.addresses()
	_, tlsErr := s.tls()
	return errors.Join(append(errs, err, tlsErr)...)
}

// addresses are the hosts, each with its port.
func (s *Server) addresses() ([]string, error) {
	var list []string
	for host := range strings.SplitSeq(s.Host, ",") {
		host = strings.TrimSpace(host)
		if strings.HasPrefix(host, "/") {
			list = append(list, host)
			continue
		}
		if _, port, err := net.SplitHostPort(host); err == nil {
			if s.Port != 0 && port != strconv.Itoa(s.Port) {
				return nil, fmt.Errorf("metadata redisHost, redisPort: %s has another port than %d; write one of them", host, s.Port)
			}
			list = append(list, host)
			continue
		}
		port := s.Port
		if port == 0 {
			port = 6379
		}
		list = append(list, net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port)))
	}
	return list, nil
}

func (s *Server) tls() (*tls.Config, error) {
	if !s.TLS {
		return nil, nil //nolint:nilnil // no TLS is what was asked for
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.Insecure} //nolint:gosec // the user's choice, by its name
	if s.ClientCert != "" && s.ClientKey != "" {
		pair, err := tls.X509KeyPair([]byte(s.ClientCert), []byte(s.ClientKey))
		if err != nil {
			return nil, fmt.Errorf("metadata clientCert, clientKey: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// options are those of the library. Commands that failed are sent again by this package, which knows which of them may.
func (s *Server) options(name string, poolSize int) (*redis.UniversalOptions, error) {
	addresses, err := s.addresses()
	if err != nil {
		return nil, err
	}
	config, err := s.tls()
	if err != nil {
		return nil, err
	}
	o := &redis.UniversalOptions{
		Addrs: addresses, ClientName: clientName(name), DB: s.DB, Username: s.Username, Password: s.Password,
		Protocol: 2, DisableIdentity: true, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries: -1, DialerRetries: 1, DialTimeout: s.DialTimeout, ReadTimeout: s.ReadTimeout, WriteTimeout: s.WriteTimeout, ContextTimeoutEnabled: true,
		PoolSize: poolSize, PoolTimeout: s.PoolTimeout, MinIdleConns: s.MinIdle, ConnMaxLifetime: s.MaxAge, ConnMaxIdleTime: s.IdleTimeout,
		ReadBufferSize: 8 << 10, WriteBufferSize: 8 << 10, // as large as most batches; the library's 32 KiB would make a connection cost 64
		TLSConfig: config, IsClusterMode: s.Type == "cluster",
	}
	if s.Failover {
		o.MasterName, o.SentinelUsername, o.SentinelPassword = s.MasterName, s.SentinelUsername, s.SentinelPassword
	}
	if o.IsClusterMode {
		o.DB = 0
	}
	return o, nil
}

// clientName is what Redis lists connections by; it takes no blanks.
func clientName(component string) string {
	return "loam-" + strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, component)
}

// silence keeps the library from writing to standard error: what it says there is in the errors it returns too.
var silence = sync.OnceFunc(func() { redis.SetLogger(nobody{}) })

type nobody struct{}

func (nobody) Printf(context.Context, string, ...any) {}

// open connects, and fails where Redis does not answer.
func (s *Server) open(ctx context.Context, name string) (*client, error) {
	silence()
	o, err := s.options(name, s.PoolSize)
	if err != nil {
		return nil, err
	}
	c := &client{
		db: redis.NewUniversalClient(o), where: strings.Join(o.Addrs, ","), number: o.DB,
		retries: s.MaxRetries, minRetry: s.MinRetry, maxRetry: s.MaxRetry,
	}
	if c.retries == 0 {
		c.retries = 3
	}
	c.own, c.lanes = laneOptions(c.db, s), map[int]*lane{}
	if s.DialTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.DialTimeout)
		defer cancel()
	}
	if err := c.db.Ping(ctx).Err(); err != nil {
		return nil, errors.Join(c.fail("redis.Open", err), c.close())
	}
	return c, nil
}
