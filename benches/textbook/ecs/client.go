// Package ecs is the smallest client of the ECS API that a controller of memberships needs: RPC signature 1.0 over POST.
// One HTTP client with kept connections, and the read timeout of the vendor's own SDK.
package ecs

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Client calls one endpoint with one access key.
type Client struct {
	Endpoint, KeyID, KeySecret string
	HTTP                       *http.Client
}

// New gives a client with a pool of connections of its own.
func New(endpoint, keyID, keySecret string) *Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.MaxIdleConnsPerHost = 100
	return &Client{Endpoint: endpoint, KeyID: keyID, KeySecret: keySecret,
		HTTP: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

// Instance is what is read of an instance.
type Instance struct {
	InstanceID       string `json:"InstanceId"`
	Status           string
	SecurityGroupIDs struct {
		SecurityGroupID []string `json:"SecurityGroupId"`
	} `json:"SecurityGroupIds"`
	VpcAttributes struct {
		VpcID string `json:"VpcId"`
	}
}

// Error is an error that the API answered.
type Error struct {
	Status                   int
	Code, Message, RequestID string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%s)", e.Code, e.Message, e.RequestID) }

// HasCode says whether an error is the API's answer with this code.
func HasCode(err error, code string) bool {
	var api *Error
	return errors.As(err, &api) && api.Code == code
}

// DescribeInstance gives nil where there is no such instance.
func (c *Client) DescribeInstance(ctx context.Context, region, id string) (*Instance, error) {
	ids, err := json.Marshal([]string{id})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Instances struct{ Instance []Instance }
	}
	parameters := url.Values{"RegionId": {region}, "InstanceIds": {string(ids)}}
	if err := c.call(ctx, "DescribeInstances", parameters, &answer); err != nil {
		return nil, err
	}
	for i := range answer.Instances.Instance {
		if answer.Instances.Instance[i].InstanceID == id {
			return &answer.Instances.Instance[i], nil
		}
	}
	return nil, nil
}

// JoinSecurityGroup adds an instance to a group.
func (c *Client) JoinSecurityGroup(ctx context.Context, region, instance, group string) error {
	return c.call(ctx, "JoinSecurityGroup", edge(region, instance, group), &struct{}{})
}

// LeaveSecurityGroup takes an instance out of a group.
func (c *Client) LeaveSecurityGroup(ctx context.Context, region, instance, group string) error {
	return c.call(ctx, "LeaveSecurityGroup", edge(region, instance, group), &struct{}{})
}

func edge(region, instance, group string) url.Values {
	return url.Values{"RegionId": {region}, "InstanceId": {instance}, "SecurityGroupId": {group}}
}

func (c *Client) call(ctx context.Context, action string, parameters url.Values, answer any) error {
	parameters.Set("Action", action)
	parameters.Set("Version", "2014-05-26")
	parameters.Set("Format", "JSON")
	parameters.Set("AccessKeyId", c.KeyID)
	parameters.Set("SignatureMethod", "HMAC-SHA1")
	parameters.Set("SignatureVersion", "1.0")
	parameters.Set("SignatureNonce", uuid.NewString())
	parameters.Set("Timestamp", time.Now().UTC().Format("2006-01-02T15:04:05Z"))
	parameters.Set("Signature", sign(http.MethodPost, parameters, c.KeySecret))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.Endpoint+"/", strings.NewReader(parameters.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := c.HTTP.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	if response.StatusCode >= 300 {
		refusal := &Error{Status: response.StatusCode}
		if err := json.Unmarshal(body, refusal); err != nil || refusal.Code == "" {
			return fmt.Errorf("%s: HTTP %d without an error code", action, response.StatusCode)
		}
		return refusal
	}
	return json.Unmarshal(body, answer)
}

// sign makes the RPC signature 1.0: HMAC-SHA1 over the sorted, encoded parameters.
func sign(method string, parameters url.Values, secret string) string {
	canonical := encode.Replace(parameters.Encode()) // Encode sorts by key
	toSign := method + "&%2F&" + encode.Replace(url.QueryEscape(canonical))
	mac := hmac.New(sha1.New, []byte(secret+"&"))
	mac.Write([]byte(toSign))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// encode turns the encoding of forms into that of RFC 3986.
var encode = strings.NewReplacer("+", "%20", "*", "%2A", "%7E", "~")
