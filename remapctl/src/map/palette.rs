//! The colours of the pictures, for a light and a dark screen. Blue, amber and vermilion are told apart by people who see no red or no
//! green; besides, pending blocks have a dot, lost ones a cross, and what is denser has more contrast.

/// A colour: its name, on a light and on a dark screen.
struct Colour(&'static str, &'static str, &'static str);

const COLOURS: [Colour; 14] = [
    Colour("ground", "#ffffff", "#10141a"),
    Colour("ink", "#1b2027", "#e8ebef"),
    Colour("faint", "#57606b", "#9da7b3"),
    Colour("line", "#cfd6dd", "#343c46"),
    Colour("clean", "#eaedf0", "#1f262e"),
    Colour("remapped-1", "#9fc8e8", "#2a5f93"),
    Colour("remapped-2", "#62a3d6", "#3f86c6"),
    Colour("remapped-3", "#2877b8", "#6fb4ef"),
    Colour("remapped-4", "#0a4880", "#bfe3ff"),
    Colour("pending", "#eba400", "#f5b731"),
    Colour("lost", "#b92d08", "#ff5c38"),
    Colour("mark", "#ffffff", "#10141a"),
    Colour("bad", "#3a4048", "#c3cad2"),
    Colour("force", "#00805d", "#37c79b"),
];

/// Custom properties for a page.
#[must_use]
pub fn properties() -> String {
    let all = |of: fn(&Colour) -> &str| {
        COLOURS.iter().map(|colour| format!("--{}:{};", colour.0, of(colour))).collect::<String>()
    };
    let (light, dark) = (all(|colour| colour.1), all(|colour| colour.2));
    format!(":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}")
}

/// Classes for an SVG, without custom properties, which not all viewers know: `name` fills, `name-stroke` strokes.
#[must_use]
pub fn classes() -> String {
    let all = |of: fn(&Colour) -> &str| {
        let rule = |colour: &Colour| format!(".{0}{{fill:{1}}}.{0}-stroke{{stroke:{1}}}", colour.0, of(colour));
        COLOURS.iter().map(rule).collect::<String>()
    };
    let (light, dark) = (all(|colour| colour.1), all(|colour| colour.2));
    format!("{light}@media (prefers-color-scheme:dark){{{dark}}}")
}

/// From how many remapped blocks on a cell of 2^n blocks is in the second, third and fourth shade: so a single one is seen in any cell,
/// and a full cell is told from one that is half full on a disk of any size. The page in a browser has the same rule.
#[must_use]
pub fn steps(cell_blocks: u64) -> [u64; 3] {
    [1, 2, 3].map(|quarters| 1 << (cell_blocks.max(1).ilog2() * quarters / 4))
}

/// The colour of a cell of `cell_blocks` blocks, with so many of each kind: the worst of them counts, however few they are.
#[must_use]
pub fn of_cell(remapped: u64, pending: u64, lost: u64, cell_blocks: u64) -> &'static str {
    let shades = ["remapped-1", "remapped-2", "remapped-3", "remapped-4"];
    match (lost, pending, remapped) {
        (0, 0, 0) => "clean",
        (0, 0, _) => shades[steps(cell_blocks).iter().filter(|step| remapped >= **step).count()],
        (0, ..) => "pending",
        _ => "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_seen_however_rare_it_is() {
        assert_eq!(of_cell(0, 0, 0, 1 << 40), "clean");
        assert_eq!(of_cell(1 << 39, 5, 1, 1 << 40), "lost");
        assert_eq!(of_cell(1 << 39, 1, 0, 1 << 40), "pending");
        assert_eq!(of_cell(1, 0, 0, 1 << 40), "remapped-1");
        assert_eq!(of_cell(1, 0, 0, 1), "remapped-4");
        assert_eq!(steps(1 << 17), [16, 256, 4096]);
        let shades = [15, 16, 4095, 4096].map(|remapped| of_cell(remapped, 0, 0, 1 << 17));
        assert_eq!(shades, ["remapped-1", "remapped-2", "remapped-3", "remapped-4"]);
    }
}
