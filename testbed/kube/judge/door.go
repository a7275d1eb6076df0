package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	admission "k8s.io/api/admission/v1"
	registration "k8s.io/api/admissionregistration/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	server "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules"
	budget "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"
)

// policy is a ValidatingAdmissionPolicy, compiled.
type policy struct {
	name      string
	rules     []registration.NamedRuleWithOperations
	validator validating.Validator
}

// door holds the policies that judge reviews: those that were rendered last and are bound.
type door struct{ policies []policy }

// take reads rendered manifests. The answer is the data of the ConfigMap liqo-peer-policy and the names of the policies.
func (d *door) take(manifests string) (any, error) {
	d.policies = nil
	var settings core.ConfigMap
	var read []registration.ValidatingAdmissionPolicy
	bound := map[string]bool{}
	for _, document := range strings.Split(manifests, "\n---") {
		var kind struct{ Kind string }
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			return nil, err
		}
		var err error
		switch kind.Kind {
		case "ConfigMap":
			err = yaml.Unmarshal([]byte(document), &settings)
		case "ValidatingAdmissionPolicy":
			read = append(read, registration.ValidatingAdmissionPolicy{})
			err = yaml.UnmarshalStrict([]byte(document), &read[len(read)-1])
		case "ValidatingAdmissionPolicyBinding":
			var binding registration.ValidatingAdmissionPolicyBinding
			err = yaml.UnmarshalStrict([]byte(document), &binding)
			bound[binding.Spec.PolicyName] = len(binding.Spec.ValidationActions) == 1 && binding.Spec.ValidationActions[0] == registration.Deny
		}
		if err != nil {
			return nil, err
		}
	}
	names := []string{}
	for i := range read {
		if !bound[read[i].Name] {
			continue
		}
		validator, err := compiled(&read[i])
		if err != nil {
			return nil, err
		}
		d.policies = append(d.policies, policy{read[i].Name, read[i].Spec.MatchConstraints.ResourceRules, validator})
		names = append(names, read[i].Name)
	}
	return map[string]any{"settings": settings.Data, "policies": names}, nil
}

// compiled is what the API server makes of a policy (compilePolicy of its plugin, which nobody else can call). An expression that does
// not compile is an error of each evaluation.
func compiled(of *registration.ValidatingAdmissionPolicy) (validating.Validator, error) {
	if of.Spec.ParamKind != nil || of.Spec.FailurePolicy == nil {
		return nil, errors.New("the judge knows policies without parameters and with a failure policy: " + of.Name)
	}
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion(), true))
	if err != nil {
		return nil, err
	}
	with := cel.OptionalVariableDeclarations{HasAuthorizer: true, StrictCost: true}
	condition := func(of []cel.ExpressionAccessor) cel.ConditionEvaluator {
		return compiler.CompileCondition(of, with, environment.StoredExpressions)
	}
	var variables []cel.NamedExpressionAccessor
	for _, one := range of.Spec.Variables {
		variables = append(variables, &validating.Variable{Name: one.Name, Expression: one.Expression})
	}
	compiler.CompileAndStoreVariables(variables, with, environment.StoredExpressions)
	var matches, validations, messages []cel.ExpressionAccessor
	for i := range of.Spec.MatchConditions {
		matches = append(matches, (*matchconditions.MatchCondition)(&of.Spec.MatchConditions[i]))
	}
	for _, one := range of.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: one.Expression, Message: one.Message, Reason: one.Reason})
		messages = append(messages, &validating.MessageExpressionCondition{MessageExpression: one.MessageExpression})
	}
	matcher := matchconditions.NewMatcher(condition(matches), of.Spec.FailurePolicy, "policy", "validate", of.Name)
	return validating.NewValidator(condition(validations), matcher, condition(nil), condition(messages), of.Spec.FailurePolicy), nil
}

// review judges a request, the `request` of an AdmissionReview. The answer is the reasons of the refusal; none: the request passes.
func (d *door) review(text []byte) (any, error) {
	var asked admission.AdmissionRequest
	if err := json.Unmarshal(text, &asked); err != nil {
		return nil, err
	}
	object, err := decoded(asked.Object.Raw)
	if err != nil {
		return nil, err
	}
	old, err := decoded(asked.OldObject.Raw)
	if err != nil {
		return nil, err
	}
	resource, kind := schema.GroupVersionResource(asked.Resource), schema.GroupVersionKind(asked.Kind)
	who := &user.DefaultInfo{Name: asked.UserInfo.Username, Groups: asked.UserInfo.Groups}
	attributes := server.NewAttributesRecord(object, old, kind, asked.Namespace, asked.Name, resource, asked.SubResource, server.Operation(asked.Operation), nil, false, who)
	versioned := &server.VersionedAttributes{Attributes: attributes, VersionedObject: object, VersionedOldObject: old, VersionedKind: kind}
	refusals := []string{}
	for _, policy := range d.policies {
		if !policy.matches(attributes) {
			continue
		}
		result := policy.validator.Validate(context.Background(), resource, versioned, nil, nil, budget.RuntimeCELCostBudget, ownNode{})
		for _, decision := range result.Decisions {
			if decision.Action != validating.ActionAdmit {
				refusals = append(refusals, fmt.Sprintf("%s: %s: %s", policy.name, decision.Evaluation, decision.Message))
			}
		}
	}
	return refusals, nil
}

func (p policy) matches(attributes server.Attributes) bool {
	for _, rule := range p.rules {
		matcher := rules.Matcher{Rule: rule.RuleWithOperations, Attr: attributes}
		if matcher.Matches() {
			return true
		}
	}
	return false
}

// decoded is an object as the API server shows it to policies; nil for none.
func decoded(raw []byte) (runtime.Object, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	object := &unstructured.Unstructured{}
	return object, json.Unmarshal(raw, &object.Object)
}

// ownNode lets everybody change one node, liqo-milan, and nothing else.
type ownNode struct{}

func (ownNode) Authorize(_ context.Context, asked authorizer.Attributes) (authorizer.Decision, string, error) {
	if asked.GetVerb() == "update" && asked.GetAPIGroup() == "" && asked.GetResource() == "nodes" && asked.GetName() == "liqo-milan" {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}
