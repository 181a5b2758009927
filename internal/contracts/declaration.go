package contracts

import "encoding/json"

// Dialects are the forms in which a language model can be told about tools.
//
//   - openai: platform.openai.com, function tools of Chat Completions, which many other servers take as well
//   - anthropic: docs.anthropic.com, tools of the Messages API
//   - mcp: modelcontextprotocol.io, tools of the answer to tools/list
var Dialects = []string{DialectOpenAI, DialectAnthropic, DialectMCP}

// The dialects.
const (
	DialectOpenAI    = "openai"
	DialectAnthropic = "anthropic"
	DialectMCP       = "mcp"
)

// Declarations is the answer of tools.discover to a question with a dialect. Tools is as a model's API takes it.
type Declarations struct {
	Type  string        `json:"type"` // "declarations"
	As    string        `json:"as"`
	Tools []Declaration `json:"tools"`
}

// Declaration tells a language model about one tool, in the form of a dialect. The names of tools and of their arguments
// are those of the contract: what the model calls can be asked for as it stands.
type Declaration json.RawMessage

// MarshalJSON writes the declaration.
func (d Declaration) MarshalJSON() ([]byte, error) { return d, nil }

// UnmarshalJSON keeps the declaration as it is.
func (d *Declaration) UnmarshalJSON(text []byte) error {
	*d = append((*d)[:0], text...)
	return nil
}

// Declare declares tools in a dialect, the first of each name: lists of contracts have the newest version first.
func Declare(tools []*Contract, dialect string) (Declarations, error) {
	answer := Declarations{Type: "declarations", As: dialect, Tools: []Declaration{}}
	last := ""
	for _, c := range tools {
		if c.Name == last {
			continue
		}
		last = c.Name
		text, err := marshalJSON(c.declare(dialect))
		if err != nil {
			return answer, err
		}
		answer.Tools = append(answer.Tools, text)
	}
	return answer, nil
}

type function struct {
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Parameters  *InputSchema `json:"parameters,omitempty"`   // openai
	InputSchema *InputSchema `json:"input_schema,omitempty"` // anthropic
	MCPSchema   *InputSchema `json:"inputSchema,omitempty"`  // mcp
}

func (c *Contract) declare(dialect string) any {
	f := function{Name: c.Name, Description: c.Description}
	schema := c.Parameters.Schema()
	switch dialect {
	case DialectAnthropic:
		f.InputSchema = &schema
	case DialectMCP:
		f.MCPSchema = &schema
	default:
		f.Parameters = &schema
		return struct {
			Type     string   `json:"type"`
			Function function `json:"function"`
		}{"function", f}
	}
	return f
}

// InputSchema is the JSON Schema (2020-12) of a tool's arguments.
type InputSchema struct {
	Type       string     `json:"type"` // "object"
	Properties properties `json:"properties"`
	Required   []string   `json:"required,omitempty"`
	Additional bool       `json:"additionalProperties"` // whether arguments that are not declared are taken
}

// properties keep the order of the contract, in which models read them.
type properties []Parameter

// Schema describes the arguments that Complete takes.
func (p Parameters) Schema() InputSchema {
	s := InputSchema{Type: "object", Properties: p.List, Additional: !p.Declared}
	for _, one := range p.List {
		if bool(one.Required) && one.Default == nil {
			s.Required = append(s.Required, one.Name)
		}
	}
	return s
}

// MarshalJSON writes an object whose keys are in the order of the contract.
func (list properties) MarshalJSON() ([]byte, error) {
	text := []byte{'{'}
	for i, one := range list {
		if i > 0 {
			text = append(text, ',')
		}
		name, err := marshalJSON(one.Name)
		if err != nil {
			return nil, err
		}
		property, err := marshalJSON(one.property())
		if err != nil {
			return nil, err
		}
		text = append(append(append(text, name...), ':'), property...)
	}
	return append(text, '}'), nil
}

type property struct {
	Type        string    `json:"type,omitempty"` // absent: any value
	Description string    `json:"description,omitempty"`
	Enum        []any     `json:"enum,omitempty"`
	Default     any       `json:"default,omitempty"`
	Items       *struct{} `json:"items,omitempty"` // of an array: anything. OpenAI refuses arrays without it
}

func (p Parameter) property() property {
	s := property{Type: p.Type, Description: p.Description, Enum: p.Enum, Default: p.Default}
	switch p.Type {
	case "":
		s.Type = "string"
	case "any":
		s.Type = ""
	case "array":
		s.Items = &struct{}{}
	}
	return s
}
