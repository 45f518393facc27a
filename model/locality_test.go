package model_test

import (
	"testing"

	"github.com/tulle-mesh/tulle/model"
)

func TestLocalityOf(t *testing.T) {
	for want, labels := range map[string]map[string]string{
		"":       {"zone": "1"},
		"eu//":   {model.LabelRegion: "eu"},
		"eu/1/":  {model.LabelRegion: "eu", model.LabelZone: "1"},
		"eu/1/a": {model.LabelRegion: "eu", model.LabelZone: "1", model.LabelSubZone: "a"},
		"/1/":    {model.LabelZone: "1"},
		"eu//a":  {model.LabelRegion: "eu", model.LabelSubZone: "a"},
	} {
		if got := model.LocalityOf(labels); got != want {
			t.Errorf("%v: %q, want %q", labels, got, want)
		}
	}
}
