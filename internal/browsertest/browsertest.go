// Package browsertest starts a real Chromium for tests.
package browsertest

import (
	"context"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"
)

// names are what Chromium is called, by who packages it.
var names = []string{"chromium", "chromium-browser", "google-chrome"}

// Start starts Chromium, headless and with a profile of its own, and ends it
// with the test; where there is none it skips the test. The context is
// chromedp's, for tabs.
func Start(t testing.TB) context.Context {
	t.Helper()
	path := find()
	if path == "" {
		t.Skipf("needs Chromium: none of %q is on PATH", names)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		// Nothing is to be asked of the internet.
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
	)
	// Not t.Context, which ends before the clean-ups, which close the browser.
	alloc, cancelAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancelAlloc)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("end Chromium: %v", err)
		}
	})
	return ctx
}

func find() string {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}
