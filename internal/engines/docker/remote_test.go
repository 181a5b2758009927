package docker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cliconfig "github.com/docker/cli/cli/config"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// TestTLS: a daemon at a tcp:// host, which asks for a certificate and shows one.
func TestTLS(t *testing.T) {
	toolIn(t)
	files := certificates(t)
	pair, err := tls.LoadX509KeyPair(files["cert"], files["key"])
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(files["ca"])))
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() { passOn(conn) })
		}
	})
	t.Cleanup(work.Wait)
	t.Cleanup(func() { listener.Close() })
	host := "tcp://" + listener.Addr().String()
	e := newEngine(t, func(c *Config) {
		c.Host, c.CA, c.Cert, c.Key = host, files["ca"], files["cert"], files["key"]
		c.MountRoots = []string{"/"}
	})
	if got := run(t, e, tool("out:by tls")); got != "by tls" {
		t.Error(got)
	}
	elsewhere(t, e)
	stranger := newEngine(t, func(c *Config) { c.Host, c.CA = host, files["ca"] })
	unavailable(t, stranger.Ready(t.Context()), "")
}

// TestTLSOfEnvironment: where DOCKER_TLS_VERIFY asks for TLS nothing is sent in the clear, wherever the files are.
func TestTLSOfEnvironment(t *testing.T) {
	host := "tcp://127.0.0.1:1"
	for name, value := range map[string]string{"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": ""} {
		t.Setenv(name, value)
	}
	was := cliconfig.Dir()
	dir := t.TempDir()
	cliconfig.SetDir(dir)
	t.Cleanup(func() { cliconfig.SetDir(was) })
	if d, err := connect(Config{}); err == nil {
		t.Errorf("without any file it speaks to %s", d.host)
	}
	files := certificates(t)
	place := func(names ...string) {
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name+".pem"), must(os.ReadFile(files[name])), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	place("ca")
	if got := tlsFiles(Config{}); got == nil || got.CAFile != dir+"/ca.pem" || got.CertFile != "" || got.KeyFile != "" || got.InsecureSkipVerify {
		t.Errorf("with a certificate of the authority alone: %+v", got)
	}
	place("cert", "key")
	if got := tlsFiles(Config{}); got == nil || got.CertFile != dir+"/cert.pem" || got.KeyFile != dir+"/key.pem" {
		t.Errorf("with all: %+v", got)
	}
	d, err := connect(Config{})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if got := tlsFiles(Config{Host: host}); got != nil {
		t.Errorf("where the configuration names a daemon: %+v", got)
	}
	t.Setenv("DOCKER_TLS_VERIFY", "")
	if got := tlsFiles(Config{}); got != nil {
		t.Errorf("where nothing asks for it: %+v", got)
	}
}

// passOn carries a connection to the daemon.
func passOn(conn net.Conn) {
	defer conn.Close()
	far, err := net.Dial("unix", strings.TrimPrefix(world.api.DaemonHost(), "unix://"))
	if err != nil {
		return
	}
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(far, conn)
		far.(*net.UnixConn).CloseWrite()
	})
	both.Go(func() {
		io.Copy(conn, far)
		if half, is := conn.(interface{ CloseWrite() error }); is {
			half.CloseWrite()
		}
	})
	both.Wait()
}

// elsewhere checks what cannot be had from a daemon that does not see the files of this machine.
func elsewhere(t *testing.T, e *Engine) {
	t.Helper()
	spec := specOf(contracts.CommonSpec{Command: contracts.Command{Argv: []string{"/bin/testtool"}}, Mounts: contracts.Mounts{{Source: t.TempDir(), Target: "/m"}}})
	j := jobOf(spec)
	if got := contracts.AsError(e.Check(j.Contract)); got.Code != contracts.Unsupported || !strings.Contains(got.Message, "another machine") {
		t.Errorf("Check says %v", got)
	}
	refusedWith(t, e, j, contracts.Unsupported, "another machine")
}

// certificates makes an authority, and a certificate for both sides.
func certificates(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "both"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	leafKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return map[string]string{
		"ca":   write("ca.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey))),
		"cert": write("cert.pem", "CERTIFICATE", must(x509.CreateCertificate(rand.Reader, leaf, root, &leafKey.PublicKey, rootKey))),
		"key":  write("key.pem", "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(leafKey))),
	}
}

// TestSSH: a daemon at an ssh:// host. What ssh would run there is run here.
func TestSSH(t *testing.T) {
	toolIn(t)
	docker, err := exec.LookPath("docker")
	if err != nil {
		if os.Getenv("EXECUTOR_TEST_DOCKER") == "1" {
			t.Fatal("EXECUTOR_TEST_DOCKER=1, but there is no docker command, which ssh runs at the other end")
		}
		t.Skip("SKIPPED, there is no docker command, which ssh runs at the other end; EXECUTOR_TEST_DOCKER=1 makes this a failure")
	}
	bin := t.TempDir()
	script := "#!/bin/sh\ncase \"$*\" in *build*there*'docker system dial-stdio'*) exec " + docker + " system dial-stdio ;; esac\necho \"unexpected: $*\" >&2\nexit 255\n"
	if err := os.WriteFile(filepath.Join(bin, "ssh"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	e := newEngine(t, func(c *Config) { c.Host, c.MountRoots = "ssh://build@there", []string{"/"} })
	if got := run(t, e, tool("out:by ssh")); got != "by ssh" {
		t.Error(got)
	}
	elsewhere(t, e)
}
