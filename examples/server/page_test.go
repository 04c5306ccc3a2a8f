package main

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/vivarium-go/vivarium/internal/browsertest"
)

// A person opens the page, asks for a file, sees Claude make it, and asks for
// it again after a reload.
func TestServerPage(t *testing.T) {
	browser := browsertest.Start(t)
	s := start(t, t.TempDir(), nil)
	tab, end := chromedp.NewContext(browser)
	t.Cleanup(end)
	if err := chromedp.Do(tab); err != nil { // the tab lives as long as the first call's context
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tab, 2*time.Minute)
	t.Cleanup(cancel)

	see := func(text string) chromedp.Action[chromedp.Void] {
		return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := chromedp.Poll[bool](`document.body.innerText.includes(`+strconv.Quote(text)+`)`)(ctx, t)
			return err
		})
	}
	say := func(text string) chromedp.Action[chromedp.Void] {
		return chromedp.Steps(chromedp.SendKeys("#prompt", text), chromedp.Click("#send"))
	}
	steps := []struct {
		name string
		do   chromedp.Action[chromedp.Void]
	}{
		{"open", chromedp.Navigate(s.url)},
		{"see that a stand-in answers", see("stand-in")},
		{"ask for a file", say("write hello.txt: made on the page")},
		{"see it made", see("Wrote hello.txt")},
		{"ask for its text", say("run: rev hello.txt")},
		{"see it", see("egap eht no edam")},
		{"reload", chromedp.Reload()},
		{"see the conversation again", see("egap eht no edam")},
		{"go on with it", say("run: tr a-z A-Z <hello.txt")},
		{"see the answer", see("MADE ON THE PAGE")},
	}
	for _, step := range steps {
		if err := chromedp.Do(ctx, step.do); err != nil {
			t.Fatalf("%s: %v\n%s", step.name, err, s.output)
		}
	}
	list := s.object(t, "GET", "/sandbox", "", 200)
	boxes, _ := list["sandboxes"].([]any)
	if len(boxes) != 1 {
		t.Fatalf("the page made %d sandboxes, want 1", len(boxes))
	}
	id, _ := boxes[0].(map[string]any)["id"].(string)
	s.do(t, "DELETE", "/sandbox/"+id, "", 200)
}
