package claude

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/vivarium-go/vivarium/sandbox"
)

// SchemaFor is the JSON schema of a Go type for Options.OutputSchema, by the
// rules of jsonschema.For: fields without omitempty are required, and a
// `jsonschema:"…"` tag describes one. The type must be encoded as an object.
func SchemaFor[T any]() (*jsonschema.Schema, error) {
	schema, err := jsonschema.For[T](nil)
	if err != nil {
		return nil, fmt.Errorf("claude: %w: no JSON schema: %w", sandbox.ErrInvalid, err)
	}
	if schema.Type != "object" {
		var v T
		return nil, fmt.Errorf("claude: %w: structured output must be an object, and %T is not: wrap it in a struct", sandbox.ErrInvalid, v)
	}
	return schema, nil
}

// DecodeOutput decodes a result's structured output. Where there is none the
// error matches ErrNoOutput; output of another shape is a *ProtocolError.
func DecodeOutput[T any](r *ResultMessage) (T, error) {
	var v T
	if r == nil || r.StructuredOutput == nil {
		return v, ErrNoOutput
	}
	if err := json.Unmarshal(r.StructuredOutput, &v); err != nil {
		return v, &ProtocolError{Line: r.StructuredOutput, Err: err}
	}
	return v, nil
}

// QueryAs runs one prompt whose answer is a T: Query with the OutputSchema of
// that type. The result is there with an error too, where there is one. Errors
// are those of Query, Stream.Result and DecodeOutput.
func QueryAs[T any](ctx context.Context, sb *sandbox.Sandbox, prompt string, opts *Options) (T, *ResultMessage, error) {
	var v T
	schema, err := SchemaFor[T]()
	if err != nil {
		return v, nil, err
	}
	c := NewClient(sb, opts)
	c.opts.OutputSchema = schema
	st, err := c.Query(ctx, prompt)
	if err != nil {
		return v, nil, err
	}
	defer st.Close()
	res, err := st.Result()
	if err != nil {
		return v, res, err
	}
	v, err = DecodeOutput[T](res)
	return v, res, err
}
