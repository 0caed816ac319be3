package operate

import (
	"testing"

	"github.com/penstock/penstock/internal/config"
)

func TestKnownHostOfAnyName(t *testing.T) {
	if !knownHost("evil.example", AdminHosts(config.Admin{Hosts: []string{"*"}})) {
		t.Error(`admin.hosts ["*"] refuses a name`)
	}
	if knownHost("evil.example", AdminHosts(config.Admin{Listen: ":8081"})) {
		t.Error("a listener on all addresses takes any name")
	}
	if !knownHost("penstock:8081", AdminHosts(config.Admin{Listen: "penstock:8081"})) {
		t.Error("the name in admin.listen is refused")
	}
}
