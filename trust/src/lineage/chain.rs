//! The steps together.

use super::{Artefact, Error, Statement, Step, StepKind};
use crate::oms::Differences;
use shared::{
    Digest, Signed, limits,
    signing::{Keyring, SigningKey},
};
use std::collections::BTreeSet;

/// Signs the steps as a lineage file, if they are a chain.
pub fn seal(steps: Vec<Step>, key: &SigningKey) -> Result<Vec<u8>, Error> {
    check(&steps)?;
    let mut file = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        let envelope = Signed::sign(&Statement::from(step), &[key])
            .map_err(|source| Error::Envelope { number: index + 1, source })?;
        file.extend(envelope);
        file.push(b'\n');
    }
    if file.len() > limits::LINEAGE_BYTES_MAX {
        return Err(Error::TooLarge { size_bytes: file.len() });
    }
    Ok(file)
}

/// Reads a lineage file. Gives its steps if a release key of `keyring` signed each, they are a chain, and the chain
/// ends in exactly `files`: those of the bundle, without the lineage itself and what signs it.
pub fn read(file: &[u8], keyring: &Keyring, files: &[Artefact]) -> Result<Vec<Step>, Error> {
    if file.len() > limits::LINEAGE_BYTES_MAX {
        return Err(Error::TooLarge { size_bytes: file.len() });
    }
    let lines = file.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let count = lines.clone().count();
    if count == 0 || count > limits::LINEAGE_STEPS_MAX {
        return Err(Error::StepCount { count });
    }
    let mut steps = Vec::with_capacity(count);
    for (index, line) in lines.enumerate() {
        let number = index + 1;
        let statement = Signed::<Statement>::parse(line)
            .and_then(|signed| signed.verify(keyring))
            .map_err(|source| Error::Envelope { number, source })?;
        // A statement of another kind does not verify.
        steps.extend(statement.into_inner().into_step());
    }
    check(&steps)?;
    let signed = steps.last().map(|step| step.subjects.as_slice()).unwrap_or_default();
    let differences = Differences::between(pairs(signed), pairs(files));
    if differences.is_empty() { Ok(steps) } else { Err(Error::OtherFiles(differences)) }
}

fn pairs(artefacts: &[Artefact]) -> impl Iterator<Item = (&str, Digest)> {
    artefacts.iter().map(|artefact| (artefact.name.as_str(), artefact.digest()))
}

/// Accepts `parent` as the chain of the version that `child` went on from: it gives all that `child` took from outside
/// of its own chain.
pub fn follows(child: &[Step], parent: &[Step]) -> Result<(), Error> {
    let given = given_by(parent);
    let (mut own, mut from_outside) = (BTreeSet::new(), None);
    for step in child {
        if let Some(named) = &step.parent {
            let outside = |artefact: &&Artefact| {
                !own.contains(&artefact.digest()) && !given.contains(&artefact.digest())
            };
            from_outside = step.materials.iter().find(outside).map(|artefact| (artefact, named));
        }
        own.extend(step.subjects.iter().map(Artefact::digest));
    }
    match from_outside {
        None => Ok(()),
        Some((artefact, parent)) => {
            Err(Error::Parent { artefact: artefact.name.clone(), parent: parent.version.clone() })
        }
    }
}

fn given_by(steps: &[Step]) -> BTreeSet<Digest> {
    steps.iter().flat_map(|step| &step.subjects).map(Artefact::digest).collect()
}

fn check(steps: &[Step]) -> Result<(), Error> {
    if steps.is_empty() || steps.len() > limits::LINEAGE_STEPS_MAX {
        return Err(Error::StepCount { count: steps.len() });
    }
    let mut given = BTreeSet::new();
    for (index, step) in steps.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &steps[before]);
        check_step(before, step, &given).map_err(|reason| Error::Broken {
            number: index + 1,
            kind: step.step,
            reason,
        })?;
        given.extend(step.subjects.iter().map(Artefact::digest));
    }
    match steps.last() {
        Some(last) if last.step != StepKind::Signing => Err(Error::Broken {
            number: steps.len(),
            kind: last.step,
            reason: "is the last one, which has to be the signing".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn check_step(before: Option<&Step>, step: &Step, given: &BTreeSet<Digest>) -> Result<(), String> {
    let Some(before) = before else {
        return match (step.step.is_origin(), step.materials.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err("is the first one and took in something".to_owned()),
            (false, _) => Err("is the first one, which has to be data or an import".to_owned()),
        };
    };
    if step.step.is_origin() || step.step <= before.step {
        return Err(format!("comes after {}", before.step));
    }
    if step.parent.is_none()
        && let Some(unknown) = step.materials.iter().find(|taken| !given.contains(&taken.digest()))
    {
        return Err(format!("took in {:?}, which no step before it gave", unknown.name));
    }
    let last_gave: BTreeSet<Digest> = before.subjects.iter().map(Artefact::digest).collect();
    if !step.materials.iter().any(|taken| last_gave.contains(&taken.digest())) {
        return Err(format!("took in nothing that {} gave", before.step));
    }
    Ok(())
}
