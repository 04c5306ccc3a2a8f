package broker

import (
	"context"
	"fmt"
	"net/http"
)

// Signer puts the credential on requests to an upstream that wants more than a
// [Key]: Amazon Bedrock, Google Vertex, a gateway that wants a signature.
//
// Sign is given the request as it would go to [Options.Upstream], without any
// credential, and may change all of it: the path, the header, and the body, which
// it reads and replaces where it needs to, Content-Length included. Reading the
// body can fail, because the body is refused or the client is gone: return that
// error as it is. Other errors go to [Options.Log], not to the sandbox, so they
// must not hold a secret. It is called for several requests at a time.
type Signer interface {
	Sign(r *http.Request) error
}

// AnswerRewriter is what a [Signer] may implement as well, for an upstream whose
// answers are not the Messages API's: Bedrock frames its streams in another way.
// RewriteAnswer is called before anything of an answer is looked at, and replaces
// what it wants to.
type AnswerRewriter interface {
	RewriteAnswer(resp *http.Response) error
}

// signedTransport signs what it sends.
type signedTransport struct {
	signer Signer
	next   http.RoundTripper
}

func (t signedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	signed := r.Clone(r.Context())
	if err := t.signer.Sign(signed); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // the error is err
		}
		return nil, fmt.Errorf("sign the request: %w", err)
	}
	return t.next.RoundTrip(signed)
}

// noKey is the key where a signer has the credential.
func noKey(context.Context) (Key, error) { return Key{}, nil }
