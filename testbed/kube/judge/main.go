// Command judge says what Kubernetes reads where liqo-rs has a reader of its own. Each line of its input is a kind, a space and
// base64; each line of its output is JSON, in the same order, `null` for what Kubernetes refuses.
//
//	quantity  a text: resource.ParseQuantity; the amount in billionths
//	request   a PEM text: ParseCSR of the certificates API; the request, and the certificate that the signer would make of it
//	door      rendered manifests: their admission policies judge the reviews that follow; the settings and the names of the policies
//	review    the request of an AdmissionReview as JSON: the reasons for which the policies refuse the request
package main

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"gopkg.in/inf.v0"
	"k8s.io/apimachinery/pkg/api/resource"
	certificates "k8s.io/kubernetes/pkg/apis/certificates/v1"
	"k8s.io/kubernetes/pkg/controller/certificates/authority"
)

type request struct {
	DER         []byte `json:"der"`
	Certificate []byte `json:"certificate"`
	CommonName  string `json:"commonName"`
	// All of them, and everything else that the subject or the request has.
	Organizations []string `json:"organizations"`
	Names         int      `json:"names"`
	Extensions    int      `json:"extensions"`
}

func quantity(text string) any {
	read, err := resource.ParseQuantity(text)
	if err != nil {
		return nil
	}
	return new(inf.Dec).Round(read.AsDec(), 9, inf.RoundUp).UnscaledBig().String()
}

func signed(signer *authority.CertificateAuthority, pem string) any {
	read, err := certificates.ParseCSR([]byte(pem))
	if err != nil || read.CheckSignature() != nil {
		return nil
	}
	certificate, err := signer.Sign(read.Raw, authority.PermissiveSigningPolicy{TTL: time.Hour, Now: time.Now})
	if err != nil {
		return nil
	}
	return request{read.Raw, certificate, read.Subject.CommonName, read.Subject.Organization, len(read.Subject.Names), len(read.Extensions)}
}

func self() (*authority.CertificateAuthority, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(24 * time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, &template, &template, public, private)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(raw)
	return &authority.CertificateAuthority{RawCert: raw, RawKey: nil, Certificate: certificate, PrivateKey: private}, err
}

func run() error {
	signer, err := self()
	if err != nil {
		return err
	}
	lines, out, door := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout), door{}
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		kind, encoded, _ := strings.Cut(lines.Text(), " ")
		input, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return err
		}
		var answer any
		switch kind {
		case "quantity":
			answer = quantity(string(input))
		case "request":
			answer = signed(signer, string(input))
		case "door":
			answer, err = door.take(string(input))
		case "review":
			answer, err = door.review(input)
		default:
			return fmt.Errorf("no kind called %q", kind)
		}
		if err != nil {
			return err
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(1)
	}
}
