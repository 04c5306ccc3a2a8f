// Package storagetest helps to test code that stores versions of workspaces: a
// bucket in memory, faults around any bucket, and the suites that every bucket
// ([Exercise]) and every runner ([ExerciseVolume]) must pass.
package storagetest
