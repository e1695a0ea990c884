package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func init() {
	SchemeBuilder.Register(&SecurityGroupMembershipSet{}, &SecurityGroupMembershipSetList{})
}

type SecurityGroupMembershipSetSpec struct {
	Region          string                `json:"region"`
	SecurityGroupID string                `json:"securityGroupID"`
	AccountRef      AccountRef            `json:"accountRef"`
	NodeSelector    *metav1.LabelSelector `json:"nodeSelector,omitempty"`
}

type SecurityGroupMembershipSetStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
	Targets            *int64             `json:"targets,omitempty"`
	ReadyTargets       *int64             `json:"readyTargets,omitempty"`
	Objects            *int64             `json:"objects,omitempty"`
}

type SecurityGroupMembershipSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   SecurityGroupMembershipSetSpec   `json:"spec,omitempty"`
	Status SecurityGroupMembershipSetStatus `json:"status,omitempty"`
}

type SecurityGroupMembershipSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []SecurityGroupMembershipSet `json:"items"`
}

// DeepCopyInto and its kin: what controller-gen writes.
func (in *SecurityGroupMembershipSet) DeepCopyInto(out *SecurityGroupMembershipSet) {
	*out = *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Spec.NodeSelector = in.Spec.NodeSelector.DeepCopy()
	in.Status.DeepCopyInto(&out.Status)
}

func (in *SecurityGroupMembershipSetStatus) DeepCopyInto(out *SecurityGroupMembershipSetStatus) {
	*out = *in
	if in.Conditions != nil {
		out.Conditions = make([]metav1.Condition, len(in.Conditions))
		for i := range in.Conditions {
			in.Conditions[i].DeepCopyInto(&out.Conditions[i])
		}
	}
	for to, from := range map[**int64]*int64{&out.Targets: in.Targets, &out.ReadyTargets: in.ReadyTargets, &out.Objects: in.Objects} {
		if from != nil {
			value := *from
			*to = &value
		}
	}
}

func (in *SecurityGroupMembershipSet) DeepCopyObject() runtime.Object {
	out := new(SecurityGroupMembershipSet)
	in.DeepCopyInto(out)
	return out
}

func (in *SecurityGroupMembershipSetList) DeepCopyObject() runtime.Object {
	out := &SecurityGroupMembershipSetList{TypeMeta: in.TypeMeta, Items: make([]SecurityGroupMembershipSet, len(in.Items))}
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	for i := range in.Items {
		in.Items[i].DeepCopyInto(&out.Items[i])
	}
	return out
}
