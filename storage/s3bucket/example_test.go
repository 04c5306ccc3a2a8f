package s3bucket_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/vivarium-go/vivarium/storage"
	"github.com/vivarium-go/vivarium/storage/s3bucket"
)

func ExampleOpen() {
	bucket, err := s3bucket.Open(context.Background(), "workspaces", &s3bucket.Config{
		Endpoint:        "http://127.0.0.1:7070",
		Region:          "us-east-1",
		AccessKeyID:     "access",
		SecretAccessKey: "secret",
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	volume := storage.NewVolume(bucket, "acme/workspace-7", nil)
	fmt.Println(volume.Name())
	// Output: acme/workspace-7
}

func ExampleNew() {
	client := s3.New(s3.Options{
		Region:       "eu-central-1",
		BaseEndpoint: aws.String("https://s3.example.org"),
		Credentials:  credentials.NewStaticCredentialsProvider("access", "secret", ""),
	})
	bucket := s3bucket.New(client, "workspaces", &s3bucket.Options{Prefix: "team-a/", PartSize: 8 << 20})
	volume := storage.NewVolume(bucket, "acme/workspace-7", nil)
	fmt.Println(volume.Name())
	// Output: acme/workspace-7
}

// A sandbox gets the right to store these bytes, and nothing else.
func ExampleBucket_PresignPut() {
	ctx := context.Background()
	bucket, err := s3bucket.Open(ctx, "workspaces", &s3bucket.Config{
		Endpoint: "http://127.0.0.1:7070", AccessKeyID: "access", SecretAccessKey: "secret",
	}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	data := []byte("a large object")
	sum := sha256.Sum256(data)
	presigner, err := storage.PresignerOf(bucket)
	if err != nil {
		fmt.Println(err) // another kind of bucket: move the bytes through Put
		return
	}
	request, err := presigner.PresignPut(ctx, "packs/1", int64(len(data)), sum[:], time.Hour)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(request.Method, strings.HasPrefix(request.URL, "http://127.0.0.1:7070/workspaces/packs/1?"))
	fmt.Println(request.Header.Get("X-Amz-Checksum-Sha256") != "")
	// Output:
	// PUT true
	// true
}
