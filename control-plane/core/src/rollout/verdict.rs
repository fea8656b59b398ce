//! How a device's attempt ended, read from what it reports.

use super::{Member, MemberState, Observed};
use shared::{
    Digest,
    wire::{Attempt, Outcome, Phase, Refusal, VersionRef},
};

/// Has the device finished, and how?
pub(super) fn judge(
    member: &Member,
    seen: Option<&Observed>,
    bundle: Digest,
) -> Option<(MemberState, String)> {
    let seen = seen?;
    let generation = member.generation?;
    let slot = seen.slot.as_ref()?;
    if let Some(attempt) = own_attempt(member, seen, bundle) {
        return Some(match &attempt.outcome {
            Outcome::Committed => (MemberState::Committed, "passed its trial".to_owned()),
            Outcome::Refused { reason, detail } => {
                (MemberState::Failed, format!("refused, {}: {detail}", refusal(*reason)))
            }
            Outcome::RolledBack { detail } => (MemberState::Failed, format!("rolled back: {detail}")),
        });
    }
    let holds =
        |version: &Option<VersionRef>| version.as_ref().is_some_and(|version| version.bundle == bundle);
    let settled = seen.reported_generation >= generation
        && slot.phase == Phase::Idle
        && holds(&slot.active)
        && holds(&slot.last_good);
    settled.then(|| (MemberState::Committed, "ran it already".to_owned()))
}

/// The attempt that the member's assignment led to, once it has ended.
pub(super) fn own_attempt<'a>(member: &Member, seen: &'a Observed, bundle: Digest) -> Option<&'a Attempt> {
    let generation = member.generation?;
    let attempt = seen.slot.as_ref()?.attempt.as_ref()?;
    (attempt.generation >= generation && attempt.version.bundle == bundle).then_some(attempt)
}

/// The wire's word for a refusal.
fn refusal(reason: shared::wire::Refusal) -> &'static str {
    match reason {
        Refusal::DigestMismatch => "digest_mismatch",
        Refusal::BadManifest => "bad_manifest",
        Refusal::WrongVersion => "wrong_version",
        Refusal::WrongBoard => "wrong_board",
        Refusal::GoldenMismatch => "golden_mismatch",
        Refusal::NotVouchedFor => "not_vouched_for",
        Refusal::Older => "older",
        Refusal::NotLoadable => "not_loadable",
        Refusal::Abandoned => "abandoned",
    }
}
