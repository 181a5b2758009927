package executor

import (
	"bytes"

	"github.com/rs/zerolog"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// registered is what the bucket has under one key.
type registered struct {
	value []byte // the last
	err   error  // of the last; nil: it is right

	contract *contracts.Contract // of the last that was right; nil: none was
	from     []byte              // what that was made of
}

// SetRegistered replaces what the registry has of the bucket: by key the values that the bucket still knows, the oldest
// first. A wrong one is not taken, and what was right before under its key stays; an instance that starts then finds that
// among the older values.
func (r *Registry) SetRegistered(entries map[string][][]byte, log zerolog.Logger) {
	stored := map[string]*registered{}
	for key, values := range entries {
		if len(values) == 0 {
			continue
		}
		stored[key] = decodeRegistered(key, values, r.registeredAt(key))
	}
	r.mu.Lock()
	r.stored = stored
	r.mu.Unlock()
	r.merge(log)
}

func (r *Registry) registeredAt(key string) *registered {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.stored[key]
}

func decodeRegistered(key string, values [][]byte, before *registered) *registered {
	last := values[len(values)-1]
	if before != nil && bytes.Equal(before.value, last) {
		return before
	}
	is := &registered{value: last}
	for i := len(values) - 1; i >= 0; i-- {
		if before != nil && before.contract != nil && bytes.Equal(before.from, values[i]) {
			is.contract, is.from = before.contract, before.from
			return is
		}
		c, err := contracts.DecodeRegistered(key, values[i])
		if err == nil {
			is.contract, is.from = c, values[i]
			return is
		}
		if is.err == nil {
			is.err = err
		}
	}
	if before != nil { // there were more wrong ones than the bucket remembers
		is.contract, is.from = before.contract, before.from
	}
	return is
}
