//! Shows that each bug on purpose is found.

use std::process::ExitCode;

/// Prints a table of the bugs on purpose with `name` in their name: after how many seeds each was found, and what was wrong then.
#[cfg(feature = "mutations")]
pub(crate) fn show(threads: usize, name: &str) -> ExitCode {
    use remap_core::mutation::Mutation;
    let wanted = Mutation::ALL.iter().copied().filter(|mutation| format!("{mutation:?}").contains(name));
    // Many of them end in panics, which are failures like any other.
    std::panic::set_hook(Box::new(|_| ()));
    println!("| bug | found by seed | what was wrong then |\n|---|---|---|");
    let found =
        remap_sim::catch_all(threads, &wanted.collect::<Vec<_>>(), remap_sim::MUTATION_SEEDS, |mutation, caught| {
            match caught {
                Some((seed, failure)) => println!("| {mutation:?} | {seed} | {} |", shorten(failure)),
                None => println!("| {mutation:?} | NOT FOUND | |"),
            }
        });
    if found { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Turns on the bug on purpose of this name.
#[cfg(feature = "mutations")]
pub(crate) fn activate(name: &str) -> Result<(), ExitCode> {
    use remap_core::mutation::{Mutation, activate};
    let Some(bug) = Mutation::ALL.iter().find(|bug| format!("{bug:?}") == name) else {
        eprintln!("there is no bug on purpose {name}: there are {:?}", Mutation::ALL);
        return Err(ExitCode::from(2));
    };
    activate(Some(*bug));
    Ok(())
}

/// The first words of what was wrong.
#[cfg(feature = "mutations")]
fn shorten(failure: &str) -> String {
    let first = failure.split(" (").next().unwrap_or_default();
    first.split([';', '{', '|']).next().unwrap_or_default().trim().chars().take(100).collect()
}

#[cfg(not(feature = "mutations"))]
pub(crate) fn show(_threads: usize, _name: &str) -> ExitCode {
    eprintln!("this was built without the feature `mutations`");
    ExitCode::from(2)
}

#[cfg(not(feature = "mutations"))]
pub(crate) fn activate(_name: &str) -> Result<(), ExitCode> {
    Err(show(0, ""))
}
