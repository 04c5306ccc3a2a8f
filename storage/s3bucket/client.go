package s3bucket

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// answerTime is how long a server may keep a client of Open waiting. It may need a
// while to put the parts of a large object together before it answers.
const answerTime = 2 * time.Minute

// impatient makes a client give up a request when the server takes nothing of it
// for limit, or has taken all of it and does not begin to answer for limit. The
// SDK itself bounds only how long a connection and its TLS may take.
func impatient(limit time.Duration) func(*s3.Options) {
	return func(o *s3.Options) {
		if base, ok := o.HTTPClient.(*awshttp.BuildableClient); ok { // it is, in what the SDK loads
			o.HTTPClient = limited(base, limit)
		}
	}
}

func limited(base *awshttp.BuildableClient, limit time.Duration) aws.HTTPClient {
	return base.WithTransportOptions(func(t *http.Transport) {
		t.ResponseHeaderTimeout = limit // begins when the request has been written
		dial := t.DialContext
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &writeLimit{conn, limit}, nil
		}
	}).Freeze() // or New, which makes a client of the client, would dial otherwise
}

// writeLimit bounds each write to a connection.
type writeLimit struct {
	net.Conn
	limit time.Duration
}

func (c *writeLimit) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
