package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"time"
)

// httpServer answers /healthz (the process lives) and /readyz (it takes requests).
type httpServer struct {
	listener net.Listener
	server   *http.Server
	done     chan struct{}
}

// listenHTTP starts the server; nil where no address is given.
func listenHTTP(address string, ready func() error) (*httpServer, error) {
	if address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, ready()) })
	s := &httpServer{listener: listener, done: make(chan struct{}), server: &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}}
	go func() {
		defer close(s.done)
		s.server.Serve(listener)
	}()
	return s, nil
}

func answer(w http.ResponseWriter, err error) {
	body := map[string]string{"status": "ok"}
	code := http.StatusOK
	if err != nil {
		body = map[string]string{"status": "unavailable", "reason": err.Error()}
		code = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		return // who asked has gone
	}
}

func (s *httpServer) url() string { return "http://" + s.listener.Addr().String() }

func (s *httpServer) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.server.Shutdown(ctx)
	s.server.Close()
	<-s.done
}

// freeIfTaken is an address, or one with any free port where that one is in use.
func freeIfTaken(address string) string {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		host, _, _ := net.SplitHostPort(address)
		return net.JoinHostPort(host, "0")
	}
	listener.Close()
	return address
}
