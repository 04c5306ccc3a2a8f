package s3test_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"go.uber.org/goleak"

	"github.com/vivarium-go/vivarium/internal/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStart(t *testing.T) {
	for _, kind := range []s3test.Kind{s3test.Versitygw, s3test.Rclone} {
		t.Run(kind.Name, func(t *testing.T) {
			server := s3test.StartKind(t, kind)
			out, err := server.Client().ListBuckets(t.Context(), &s3.ListBucketsInput{})
			if err != nil || len(out.Buckets) != 1 || *out.Buckets[0].Name != server.Bucket {
				t.Fatalf("%+v, %v", out, err)
			}
		})
	}
}
