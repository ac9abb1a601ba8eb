package integration

// Lets our server answer on the gRPC listeners of etcd's test clusters. Compiled into etcd's own test
// package in place of the line that would let etcd answer there; everything else of the cluster stays,
// so that the tests compile and run as they are.
//
// All members of a cluster lead to one server of ours, which lives as long as one of them does.

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"io/ioutil"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/pkg/transport"
)

type holdfastServer struct {
	Directory string
	Socket    string
	members   int
}

var (
	holdfastMu   sync.Mutex
	holdfasts    = map[string]*holdfastServer{}
	holdfastDirs = map[string]string{}
)

// serveHoldfast serves what connects to the listener, until the answered function is called.
func serveHoldfast(m *member, l net.Listener) func() {
	holdfastMu.Lock()
	defer holdfastMu.Unlock()
	cluster := m.InitialPeerURLsMap.String()
	server := holdfasts[cluster]
	if server == nil {
		server = startHoldfast(m, cluster)
		holdfasts[cluster] = server
	}
	server.members++
	door := &door{conns: map[net.Conn]struct{}{}}
	go door.serve(l, server.Socket)
	return func() {
		l.Close()
		door.close()
		holdfastMu.Lock()
		defer holdfastMu.Unlock()
		if server.members--; server.members == 0 {
			ask("/stop", server)
			delete(holdfasts, cluster)
		}
	}
}

func startHoldfast(m *member, cluster string) *holdfastServer {
	if holdfastDirs[cluster] == "" {
		directory, err := ioutil.TempDir("", "holdfast")
		if err != nil {
			panic(err)
		}
		holdfastDirs[cluster] = directory
	}
	progress := m.WatchProgressNotifyInterval
	if progress == 0 {
		progress = v3rpc.GetProgressReportInterval()
	}
	request := map[string]interface{}{
		"directory":       holdfastDirs[cluster],
		"name":            m.Name,
		"advertise":       m.grpcAddr,
		"authToken":       m.AuthToken,
		"tokenTtlSeconds": m.TokenTTL,
		"quotaBytes":      m.QuotaBackendBytes,
		"requestBytes":    m.MaxRequestBytes,
		"operations":      m.MaxTxnOps,
		"progressMs":      int64(progress / time.Millisecond),
	}
	if info := m.ClientTLSInfo; info != nil {
		request["tls"] = tlsOf(info)
	}
	socket := string(ask("/start", request))
	return &holdfastServer{Directory: holdfastDirs[cluster], Socket: socket}
}

func tlsOf(info *transport.TLSInfo) map[string]interface{} {
	suites := []string{}
	for _, id := range info.CipherSuites {
		suites = append(suites, tls.CipherSuiteName(id))
	}
	files := map[string]interface{}{
		"cert":    absolute(info.CertFile),
		"key":     absolute(info.KeyFile),
		"ciphers": suites,
	}
	if info.ClientCertAuth {
		files["ca"] = absolute(info.TrustedCAFile)
	}
	return files
}

func absolute(path string) string {
	found, err := filepath.Abs(path)
	if err != nil {
		panic(err)
	}
	return found
}

// ask tells the experiment what to do and answers what it says.
func ask(path string, request interface{}) []byte {
	body, err := json.Marshal(request)
	if err != nil {
		panic(err)
	}
	response, err := http.Post(os.Getenv("HOLDFAST_CONTROL")+path, "application/json", bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	answer, err := ioutil.ReadAll(response.Body)
	http.DefaultClient.CloseIdleConnections()
	if err != nil || response.StatusCode != http.StatusOK {
		panic(fmt.Sprintf("%s: %v %s", path, err, answer))
	}
	return answer
}

// holdfastMetrics answers what etcd's metrics address would.
func holdfastMetrics(m *member) (*http.Response, error) {
	holdfastMu.Lock()
	server := holdfasts[m.InitialPeerURLsMap.String()]
	holdfastMu.Unlock()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", server.Socket)
		},
	}}
	return client.Get("http://localhost/metrics")
}

// A door copies connections to the server's socket and back.
type door struct {
	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
}

func (d *door) serve(l net.Listener, socket string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("unix", socket)
		if err != nil || !d.keep(in, out) {
			in.Close()
			continue
		}
		go d.copy(in, out)
		go d.copy(out, in)
	}
}

func (d *door) keep(in, out net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		out.Close()
		return false
	}
	d.conns[in], d.conns[out] = struct{}{}, struct{}{}
	return true
}

func (d *door) copy(to, from net.Conn) {
	io.Copy(to, from)
	to.Close()
	from.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, to)
	delete(d.conns, from)
}

func (d *door) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for c := range d.conns {
		c.Close()
	}
}
