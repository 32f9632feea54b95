package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/loam-run/loam"
	"github.com/loam-run/loam/snapshot"
)

// serverTLS is how a section speaks TLS.
func (s *server) serverTLS(section snapshot.Section) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if section.TLS.MinVersion == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	for _, certificate := range section.TLS.Certificates {
		pair, err := keyPair(certificate)
		if err != nil {
			return nil, err
		}
		c.Certificates = append(c.Certificates, pair)
	}
	if len(section.TLS.ClientCA) > 0 {
		pool, err := authorities(section.TLS.ClientCA...)
		if err != nil {
			return nil, err
		}
		c.ClientCAs, c.ClientAuth = pool, tls.RequireAndVerifyClientCert
		if section.TLS.ClientAuth == snapshot.ClientAuthRequest {
			c.ClientAuth = tls.RequestClientCert
			c.VerifyConnection = func(state tls.ConnectionState) error { return nil }
		}
	}
	return c, nil
}

// clientTLS is how endpoints at address are spoken to; nil: without TLS.
func clientTLS(c *snapshot.ClientTLS, protocols ...string) (func(address string) *tls.Config, error) {
	if c == nil {
		return func(string) *tls.Config { return nil }, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: protocols, ServerName: c.ServerName, InsecureSkipVerify: c.Insecure, ClientSessionCache: tls.NewLRUClientSessionCache(64)}
	if c.CA != nil {
		pool, err := authorities(*c.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if c.Certificate != nil {
		pair, err := keyPair(*c.Certificate)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return func(address string) *tls.Config {
		if config.ServerName != "" || config.InsecureSkipVerify {
			return config
		}
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		named := config.Clone()
		named.ServerName = host
		return named
	}, nil
}

func keyPair(c snapshot.Certificate) (tls.Certificate, error) {
	refuse := func(err error) (tls.Certificate, error) {
		return tls.Certificate{}, &loam.Error{Code: loam.FailedPrecondition, Op: "certificate " + c.Name, Err: err, Hint: "it must be a PEM certificate, its chain behind it, and the key that fits"}
	}
	cert, key := []byte(c.CertPEM), []byte(c.KeyPEM)
	var err error
	if c.CertFile != "" {
		if cert, err = os.ReadFile(c.CertFile); err != nil {
			return refuse(err)
		}
	}
	if c.KeyFile != "" {
		if key, err = os.ReadFile(c.KeyFile); err != nil {
			return refuse(err)
		}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return refuse(err)
	}
	return pair, nil
}

func authorities(all ...snapshot.Authority) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, a := range all {
		pem := []byte(a.PEM)
		var err error
		if a.File != "" {
			pem, err = os.ReadFile(a.File)
		}
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = errors.New("it holds no certificate")
		}
		if err != nil {
			return nil, &loam.Error{Code: loam.FailedPrecondition, Op: "authority " + a.Name, Err: fmt.Errorf("%w", err), Hint: "it must be certificates in PEM"}
		}
	}
	return pool, nil
}
