package s3bucket_test

import (
	"context"
	"fmt"

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
