package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/penstock/penstock/tools/alerts/dashboards"
	"github.com/penstock/penstock/tools/alerts/page"
)

const boards = "../../infra/grafana"

// points is how many points a curve has at most, as in Grafana's panels of this width.
const points = 400

// draw takes a picture of each dashboard in light and dark. Chromium draws at a scale of 1, which keeps files small.
func draw(ctx context.Context, prometheus string, length time.Duration, browser, out string) error {
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.NoSandbox,
		chromedp.Flag("no-zygote", true), chromedp.Flag("disable-gpu", true))
	ctx, cancel := chromedp.NewExecAllocator(ctx, opts...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	all, err := dashboards.All()
	if err != nil {
		return err
	}
	step := max(15*time.Second, (length / points).Round(time.Second))
	w := page.Window{Step: step, N: int(length/step) + 1}
	w.From = time.Now().Truncate(step).Add(-time.Duration(w.N-1) * step)
	for name := range all {
		file := name + ".json"
		text, err := os.ReadFile(filepath.Join(boards, file))
		if err != nil {
			return err
		}
		board, err := page.Read(text)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		v := page.View{Board: board, Window: w, File: file}
		if name == "project" {
			v.Variables = map[string]string{"project": "shop"}
		}
		for _, theme := range []string{"light", "dark"} {
			path := filepath.Join(out, "dashboard-"+name+"-"+theme+".png")
			if err := shoot(ctx, v, page.Prometheus(prometheus), theme == "dark", path); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			fmt.Println("drew", path)
		}
	}
	return nil
}

// shoot takes a picture of a view.
func shoot(ctx context.Context, v page.View, from page.Source, dark bool, path string) (err error) {
	text, err := v.HTML(from, dark)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp("", "dashboard-*.html")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	err = chromedp.Do(ctx, chromedp.EmulateViewport(page.Width, 900), chromedp.Navigate("file://"+f.Name()))
	if err != nil {
		return err
	}
	const png = 100
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(png))
	if err != nil {
		return err
	}
	return os.WriteFile(path, picture, 0o644) // #nosec G306 -- a picture for everybody
}
