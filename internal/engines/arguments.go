package engines

import (
	"encoding/json"

	"github.com/praxis-sdk/executor/internal/contracts"
)

// Argv is the command of a job with its placeholders filled. An error has the code invalid_args.
func (j *Job) Argv() ([]string, error) {
	argv, err := contracts.Expand(j.Spec.Common().Command.Argv, j.Args, j.Context)
	if err != nil {
		return nil, err
	}
	if len(argv) == 0 || argv[0] == "" {
		return nil, contracts.Errorf(contracts.InvalidArgs, "the command is empty: its first element stands for an argument that was not given")
	}
	return argv, nil
}

// ArgsText is what the file that ARGS_FILE names holds: all args and the context, as JSON.
func (j *Job) ArgsText() ([]byte, error) {
	return json.Marshal(struct {
		Args    map[string]any `json:"args"`
		Context map[string]any `json:"context"`
	}{orEmpty(j.Args), orEmpty(j.Context)})
}

func orEmpty(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}
