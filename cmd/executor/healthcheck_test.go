package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthcheck(t *testing.T) {
	draining := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, errors.New("draining")) }))
	defer draining.Close()
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	d := startDev(t, "")
	for _, c := range []struct {
		url  string
		code int
		text string
	}{
		{d.http + "/readyz", exitOK, "ok\n"},
		{d.http + "/healthz", exitOK, "ok\n"},
		{draining.URL, exitError, "executor: unavailable: draining\n"},
		{other.URL, exitError, "is no executor"},
		{"http://127.0.0.1:1/readyz", exitError, "refused"},
		{"http://\x00", exitUsage, "--url"},
	} {
		var out bytes.Buffer
		if code := execute(t.Context(), []string{"healthcheck", "--url", c.url}, nil, &out, &out); code != c.code || !strings.Contains(out.String(), c.text) {
			t.Errorf("%q: %d %s", c.url, code, out.String())
		}
	}
}
