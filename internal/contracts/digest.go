package contracts

import (
	"crypto/sha256"
	"encoding/hex"
)

// Digest says what the request asks for: "sha256:" and the hash of the canonical JSON (sorted keys, no white space,
// numbers as they were written) of tool or contract, args, context and stdin. Two requests with one id must have one
// digest.
func (r *Request) Digest() string {
	ask := struct {
		Tool     string         `json:"tool,omitempty"`
		Version  string         `json:"version,omitempty"`
		Contract *Contract      `json:"contract,omitempty"`
		Args     map[string]any `json:"args,omitempty"`
		Context  map[string]any `json:"context,omitempty"`
		Stdin    []byte         `json:"stdin,omitempty"`
	}{r.Tool, r.Version, r.Contract, r.Args, r.Context, r.StdinBase64}
	if r.Stdin != "" {
		ask.Stdin = []byte(r.Stdin)
	}
	text, err := marshalJSON(ask)
	if err != nil {
		panic("contracts: a decoded request cannot be encoded: " + err.Error()) // all its parts came from JSON
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}
