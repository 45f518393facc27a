package cel_test

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

// TestStartsWithNothing: linking the language in costs a proxy without expressions next to nothing when it starts. This test
// program links it, so what its packages do before main is what they do in a proxy.
func TestStartsWithNothing(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all := regexp.MustCompile(`(?m)^init (cel\.dev/\S+|github\.com/antlr4-go/\S+|\S+/model/authz\S*) .* (\d+) bytes`).FindAllSubmatch(out, -1)
	if len(all) == 0 {
		t.Fatalf("nothing of CEL is traced\n%s", out)
	}
	sum := 0
	for _, m := range all {
		n, err := strconv.Atoi(string(m[2]))
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if most := 256 << 10; sum > most {
		t.Errorf("%d bytes are allocated by CEL before anything is asked of it, at most %d are taken\n%s", sum, most, out)
	}
}
