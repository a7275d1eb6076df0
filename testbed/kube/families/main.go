// Command families reads the text format of Prometheus from its input, with Prometheus' own parser, and prints the families as
// JSON: type, help and number of samples of each family that has samples. It fails on what Prometheus refuses, and on a sample
// that is there twice.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

type family struct {
	Type    string `json:"type"`
	Help    string `json:"help"`
	Samples int    `json:"samples"`
}

func once(name string, metrics []*dto.Metric) error {
	seen := map[string]bool{}
	for _, metric := range metrics {
		labels := fmt.Sprint(metric.GetLabel())
		if seen[labels] {
			return fmt.Errorf("%s %s is there twice", name, labels)
		}
		seen[labels] = true
	}
	return nil
}

func run() error {
	var parser expfmt.TextParser
	found, err := parser.TextToMetricFamilies(os.Stdin)
	if err != nil {
		return err
	}
	families := map[string]family{}
	for name, one := range found {
		if err := once(name, one.Metric); err != nil {
			return err
		}
		families[name] = family{one.GetType().String(), one.GetHelp(), len(one.Metric)}
	}
	return json.NewEncoder(os.Stdout).Encode(families)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "families:", err)
		os.Exit(1)
	}
}
