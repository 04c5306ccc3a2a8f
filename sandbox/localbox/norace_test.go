//go:build !race

package localbox_test

// raceDetector: this test binary has the race detector in it.
const raceDetector = false
