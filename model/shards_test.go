package model_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/tulle-mesh/tulle/model"
)

func TestParseShards(t *testing.T) {
	for text, want := range map[string][]model.SlotRange{
		"0": {{First: 0, Last: 0}}, "0-127_255": {{First: 0, Last: 127}, {First: 255, Last: 255}}, "7,3-4,3": {{First: 7, Last: 7}, {First: 3, Last: 4}, {First: 3, Last: 3}},
	} {
		if got, err := model.ParseShards(text, 256); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"": "no slot and no range", "1,": "nothing follows", "4-3": "write 3-4", "256": "0 to 255", "0-256": "0 to 255", "-1": "no slot", "1-": "no slot", "1-2-3": "no slot", "99999999999": "no slot", "1,,2": "no slot",
		strings.Repeat("1_", 64) + "1": "more than 64",
	} {
		if got, err := model.ParseShards(text, 256); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v %v, want an error with %q", text, got, err, want)
		}
	}
}

func TestUnowned(t *testing.T) {
	got := model.Unowned(10, []model.SlotRange{{First: 1, Last: 3}, {First: 3, Last: 4}, {First: 8, Last: 8}})
	if want := []model.SlotRange{{First: 0, Last: 0}, {First: 5, Last: 7}, {First: 9, Last: 9}}; !reflect.DeepEqual(got, want) {
		t.Error(got)
	}
	if got := model.Unowned(4, []model.SlotRange{{First: 0, Last: 3}}); got != nil {
		t.Error(got)
	}
}

// FuzzParseShards: what is read is within bounds, and is read again as it is written.
func FuzzParseShards(f *testing.F) {
	f.Add("0-127_256", uint32(1024))
	f.Add("4-3,", uint32(1))
	f.Fuzz(func(t *testing.T, text string, slots uint32) {
		got, err := model.ParseShards(text, slots)
		if err != nil {
			return
		}
		var again []string
		for _, r := range got {
			if r.First > r.Last || r.Last >= slots {
				t.Fatalf("%q of %d: %v", text, slots, r)
			}
			again = append(again, r.String())
		}
		if same, err := model.ParseShards(strings.Join(again, "_"), slots); err != nil || len(got) > model.MaxShardRanges || !reflect.DeepEqual(got, same) {
			t.Fatalf("%q: %v, again %v %v", text, got, same, err)
		}
	})
}
