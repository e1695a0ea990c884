// Package api holds the part of SecurityGroupMembership that a controller reads and writes. Only types.
package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/scheme"
)

// GroupVersion of the kind.
var GroupVersion = schema.GroupVersion{Group: "security-group-operator.io", Version: "v1alpha1"}

// SchemeBuilder registers the kind.
var SchemeBuilder = (&scheme.Builder{GroupVersion: GroupVersion}).
	Register(&SecurityGroupMembership{}, &SecurityGroupMembershipList{})

type SecurityGroupMembershipSpec struct {
	Region             string     `json:"region"`
	InstanceID         string     `json:"instanceID,omitempty"`
	NetworkInterfaceID string     `json:"networkInterfaceID,omitempty"`
	SecurityGroupID    string     `json:"securityGroupID"`
	AccountRef         AccountRef `json:"accountRef"`
	ManagementPolicy   string     `json:"managementPolicy,omitempty"`
	AdoptionPolicy     string     `json:"adoptionPolicy,omitempty"`
	DeletionPolicy     string     `json:"deletionPolicy,omitempty"`
	DriftPolicy        string     `json:"driftPolicy,omitempty"`
	Suspend            bool       `json:"suspend,omitempty"`
}

type AccountRef struct {
	Kind string `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
}

type SecurityGroupMembershipStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	Origin             string             `json:"origin,omitempty"`
	Target             *Target            `json:"target,omitempty"`
	LastError          *LastError         `json:"lastError,omitempty"`
}

type Target struct {
	State       string   `json:"state"`
	VPCID       string   `json:"vpcID,omitempty"`
	LockReasons []string `json:"lockReasons,omitempty"`
}

type LastError struct {
	Action    string      `json:"action"`
	Code      string      `json:"code,omitempty"`
	Class     string      `json:"class"`
	RequestID string      `json:"requestID,omitempty"`
	Time      metav1.Time `json:"time"`
	Message   string      `json:"message"`
}

type SecurityGroupMembership struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SecurityGroupMembershipSpec   `json:"spec,omitempty"`
	Status SecurityGroupMembershipStatus `json:"status,omitempty"`
}

type SecurityGroupMembershipList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SecurityGroupMembership `json:"items"`
}

// DeepCopyInto and its kin: what controller-gen writes.
func (in *SecurityGroupMembership) DeepCopyInto(out *SecurityGroupMembership) {
	*out = *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	in.Status.DeepCopyInto(&out.Status)
}

func (in *SecurityGroupMembershipStatus) DeepCopyInto(out *SecurityGroupMembershipStatus) {
	*out = *in
	if in.Conditions != nil {
		out.Conditions = make([]metav1.Condition, len(in.Conditions))
		for i := range in.Conditions {
			in.Conditions[i].DeepCopyInto(&out.Conditions[i])
		}
	}
	if in.Target != nil {
		target := *in.Target
		target.LockReasons = append([]string(nil), in.Target.LockReasons...)
		out.Target = &target
	}
	if in.LastError != nil {
		lastError := *in.LastError
		out.LastError = &lastError
	}
}

func (in *SecurityGroupMembership) DeepCopyObject() runtime.Object {
	out := new(SecurityGroupMembership)
	in.DeepCopyInto(out)
	return out
}

func (in *SecurityGroupMembershipList) DeepCopyObject() runtime.Object {
	out := &SecurityGroupMembershipList{TypeMeta: in.TypeMeta, Items: make([]SecurityGroupMembership, len(in.Items))}
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	for i := range in.Items {
		in.Items[i].DeepCopyInto(&out.Items[i])
	}
	return out
}
