// Command families reads the text format of Prometheus from its input, with Prometheus' own parser, and prints the families as
// JSON: type, help and label names of each family that has samples. It fails on what Prometheus refuses, and on a sample
// that is there twice.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

type family struct {
	Type   string   `json:"type"`
	Help   string   `json:"help"`
	Labels []string `json:"labels"`
}

// The names of the labels, which all samples of a family share.
func labels(name string, metrics []*dto.Metric) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for number, metric := range metrics {
		its := []string{}
		for _, label := range metric.GetLabel() {
			its = append(its, label.GetName())
		}
		slices.Sort(its)
		if number > 0 && !slices.Equal(its, names) {
			return nil, fmt.Errorf("samples of %s have the labels %v and %v", name, names, its)
		}
		names = its
		if all := fmt.Sprint(metric.GetLabel()); seen[all] {
			return nil, fmt.Errorf("%s %s is there twice", name, all)
		} else {
			seen[all] = true
		}
	}
	return names, nil
}

func run() error {
	var parser expfmt.TextParser
	found, err := parser.TextToMetricFamilies(os.Stdin)
	if err != nil {
		return err
	}
	families := map[string]family{}
	for name, one := range found {
		names, err := labels(name, one.Metric)
		if err != nil {
			return err
		}
		families[name] = family{strings.ToLower(one.GetType().String()), one.GetHelp(), names}
	}
	return json.NewEncoder(os.Stdout).Encode(families)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "families:", err)
		os.Exit(1)
	}
}
