"use strict";
// Draws what is in this page. Extents are unpacked once; how many blocks of each state there are before any block is then known by one
// search, so that every zoom is drawn from the extents themselves, in the same time however many there are.
(() => {
	const facts = JSON.parse(document.body.dataset.picture);
	const element = (id) => document.getElementById(id);
	const STATES = ["remapped", "pending", "lost"];
	const ROW_HEIGHT = 24; // the highest row
	const MAP_HEIGHT = 512;
	const GUTTER = 118; // for the labels on each side

	// Extents, in the order of the base.
	const extents = unpack(element("extents").textContent, facts.extents);
	element("extents").remove();

	// See packed.rs: gap, length * 4 + state, and the difference of the spare block, as LEB128.
	function unpack(text, count) {
		const starts = new Float64Array(count);
		const spares = new Float64Array(count);
		const lengths = new Uint32Array(count);
		const states = new Uint8Array(count);
		const before = new Uint32Array(3 * (count + 1)); // of each state, before each extent
		const sums = new Uint32Array(3);
		const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
		let at = 0;
		const number = () => {
			let value = 0;
			for (let factor = 1; ; factor *= 128) {
				const byte = bytes[at++];
				if (byte === undefined) throw new Error("this page is not whole");
				if (byte < 128) return value + byte * factor;
				value += (byte - 128) * factor;
			}
		};
		let next = 0;
		let spareNext = 0;
		for (let index = 0; index < count; index++) {
			next += number();
			const both = number();
			const state = both % 4;
			const length = (both - state) / 4;
			starts[index] = next;
			lengths[index] = length;
			states[index] = state;
			next += length;
			if (state !== 1) {
				const zigzag = number();
				spareNext += zigzag % 2 ? -(zigzag + 1) / 2 : zigzag / 2;
				spares[index] = spareNext;
				spareNext += length;
			}
			sums[state] += length;
			before.set(sums, 3 * index + 3);
		}
		return { count, starts, lengths, states, spares, before };
	}

	// The first extent that ends behind this block.
	function search(block) {
		let low = 0;
		let high = extents.count;
		while (low < high) {
			const middle = (low + high) >>> 1;
			if (extents.starts[middle] + extents.lengths[middle] > block) high = middle;
			else low = middle + 1;
		}
		return low;
	}

	// How many blocks of each state are before this one.
	function rank(block) {
		const index = search(block);
		const counts = [0, 1, 2].map((state) => extents.before[3 * index + state]);
		if (index < extents.count && extents.starts[index] < block) counts[extents.states[index]] += block - extents.starts[index];
		return counts;
	}

	const between = (first, last) => last.map((count, state) => count - first[state]);

	// Words.
	const grouped = new Intl.NumberFormat("en-US");
	const count = (number) => grouped.format(number);
	const plural = (number) => `${count(number)} block${number === 1 ? "" : "s"}`;
	function size(blocks) {
		let bytes = blocks * facts.block_size;
		let unit = 0;
		for (; bytes >= 1024 && unit < 6; unit++) bytes /= 1024;
		return `${Number(bytes.toFixed(unit && bytes < 1000 ? 2 : 0))} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"][unit]}`;
	}
	// What is less than a hundredth of its unit apart is told in bytes.
	function labelOf(block, apart) {
		const unit = 1024 ** Math.floor(Math.log2(Math.max(1, block * facts.block_size)) / 10);
		return apart * facts.block_size * 100 < unit ? exactByte(block) : size(block);
	}
	const exactByte = (block) => count(BigInt(block) * BigInt(facts.block_size));

	// Colours, as the style has them for the screen that is used.
	let colours = {};
	const COLOURS = ["ground", "ink", "faint", "line", "clean", "remapped-1", "remapped-2", "remapped-3", "remapped-4", "pending", "lost", "mark", "bad", "force"];
	function readColours() {
		const style = getComputedStyle(document.documentElement);
		colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`)]));
	}

	// See palette.rs: from how many blocks on a cell is darker.
	const steps = (cellBlocks) => [1, 2, 3].map((quarters) => 2 ** Math.floor((Math.log2(cellBlocks) * quarters) / 4));
	const shade = (number, at) => `remapped-${1 + at.filter((step) => number >= step).length}`;

	function colourOf([remapped, pending, lost], at) {
		if (lost) return "lost";
		if (pending) return "pending";
		return remapped ? shade(remapped, at) : "clean";
	}

	function prepare(canvas, height) {
		const ratio = window.devicePixelRatio || 1;
		const width = canvas.clientWidth;
		canvas.style.height = `${height}px`;
		canvas.width = Math.round(width * ratio);
		canvas.height = Math.round(height * ratio);
		const context = canvas.getContext("2d");
		context.scale(ratio, ratio);
		context.clearRect(0, 0, width, height);
		return { context, width };
	}

	function drawCell(context, colour, x, y, width, height) {
		const gap = width >= 6 ? 1 : 0;
		context.fillStyle = colours[colour];
		context.fillRect(x, y, width - gap, height - gap);
		const side = Math.min(width, height) - gap;
		if (side < 4) return;
		const [middleX, middleY, arm] = [x + (width - gap) / 2, y + (height - gap) / 2, side * 0.3];
		if (colour === "pending") {
			context.fillStyle = "#1b2027";
			context.fillRect(middleX - arm / 2, middleY - arm / 2, arm, arm);
		} else if (colour === "lost" || colour === "bad") {
			context.strokeStyle = colours.mark;
			context.lineWidth = Math.max(1, side * 0.14);
			context.beginPath();
			context.moveTo(middleX - arm, middleY - arm);
			context.lineTo(middleX + arm, middleY + arm);
			context.moveTo(middleX + arm, middleY - arm);
			context.lineTo(middleX - arm, middleY + arm);
			context.stroke();
		}
	}

	// What is shown: a level of zoom, and the first row of it. At level 0 the whole device is seen. Each level has half the blocks a cell,
	// and when a cell is one block, half the cells a row.
	const cells = element("cells");
	let columns = facts.columns;
	let levels = [];
	let level = 0;
	let top = 0;
	let cursor = null; // the block that was chosen last
	let pointed = null; // the block under the pointer

	function measure() {
		const width = cells.clientWidth - 2 * GUTTER;
		columns = width >= 600 ? facts.columns : facts.columns / 2;
		const smallest = Math.max(2, Math.floor((width / columns) * 2) / 2);
		const rows = Math.floor(MAP_HEIGHT / smallest);
		let cellBlocks = 1;
		while (facts.base_blocks > cellBlocks * columns * rows) cellBlocks *= 2;
		levels = [];
		for (; cellBlocks >= 1; cellBlocks /= 2) levels.push(makeLevel(cellBlocks, columns, smallest));
		for (let fewer = columns / 2; fewer >= 16; fewer /= 2) levels.push(makeLevel(1, fewer, (smallest * columns) / fewer));
		// Levels at which nothing would be left out, but for the last of them, show no more than that one.
		while (levels.length > 1 && levels[1].allRows <= levels[1].rows) levels.shift();
	}

	function makeLevel(cellBlocks, cellColumns, width) {
		const height = Math.min(width, ROW_HEIGHT);
		const row = cellBlocks * cellColumns;
		return { cellBlocks, columns: cellColumns, width, height, row, rows: Math.floor(MAP_HEIGHT / height), allRows: Math.ceil(facts.base_blocks / row) };
	}

	const now = () => levels[level];
	const lastTop = () => Math.max(0, now().allRows - now().rows);
	const clampTop = (row) => Math.min(lastTop(), Math.max(0, Math.floor(row)));
	const shownRows = () => Math.min(now().rows, now().allRows - top);
	const shownEnd = () => Math.min(facts.base_blocks, (top + shownRows()) * now().row);

	function zoom(to, block, rowOnScreen) {
		const wanted = Math.min(levels.length - 1, Math.max(0, to));
		if (wanted === level) return false;
		level = wanted;
		top = clampTop(Math.floor(block / now().row) - Math.min(rowOnScreen, now().rows - 1));
		draw();
		return true;
	}

	// Without a pointer, the middle of what is shown stays.
	function zoomMiddle(by) {
		const visible = cursor !== null && cursor >= top * now().row && cursor < shownEnd();
		const block = visible ? cursor : Math.min(facts.base_blocks - 1, (top + shownRows() / 2) * now().row);
		zoom(level + by, block, Math.floor(now().rows / 2));
	}

	function show(block) {
		cursor = Math.min(facts.base_blocks - 1, Math.max(0, block));
		const row = Math.floor(cursor / now().row);
		if (row < top || row >= top + now().rows) top = clampTop(row - now().rows / 2);
		pointed = null;
		draw();
	}

	function draw() {
		const at = now();
		const height = shownRows() * at.height + 20;
		const { context } = prepare(cells, Math.max(height, level === 0 ? 0 : MAP_HEIGHT));
		const left = GUTTER;
		const thresholds = steps(at.cellBlocks);
		context.font = "12px system-ui, sans-serif";
		context.textBaseline = "middle";
		context.fillStyle = colours.faint;
		const labelled = 2 ** Math.max(0, Math.ceil(Math.log2(40 / at.height)));
		const right = left + at.columns * at.width;
		context.textAlign = "right";
		context.fillText("LBA", left - 10, 7);
		context.textAlign = "left";
		context.fillText("byte", right + 8, 7);
		for (let row = 0; row < shownRows(); row++) {
			const y = 20 + row * at.height;
			const first = (top + row) * at.row;
			if (row % labelled === 0) {
				context.fillStyle = colours.faint;
				context.textAlign = "right";
				context.fillText(count(first), left - 10, y + at.height / 2);
				context.textAlign = "left";
				context.fillText(labelOf(first, at.row * labelled), right + 8, y + at.height / 2);
			}
			let before = rank(first);
			const none = between(before, rank(first + at.row)).every((number) => number === 0);
			for (let column = 0; column < at.columns; column++) {
				const start = first + column * at.cellBlocks;
				if (start >= facts.base_blocks) break;
				let colour = "clean";
				if (!none) {
					const end = rank(Math.min(start + at.cellBlocks, facts.base_blocks));
					colour = colourOf(between(before, end), thresholds);
					before = end;
				}
				drawCell(context, colour, left + column * at.width, y, at.width, at.height);
				if (at.width >= 50 && colour === "clean") {
					context.fillStyle = colours.faint;
					context.textAlign = "center";
					context.font = "10px system-ui, sans-serif";
					context.fillText(`…${String(start % 10000).padStart(Math.min(4, String(facts.base_blocks).length), "0")}`, left + (column + 0.5) * at.width, y + at.height / 2);
					context.font = "12px system-ui, sans-serif";
				}
			}
		}
		for (const [block, colour] of [[cursor, "force"], [pointed, "ink"]]) outline(context, block, colour, left);
		drawStrip();
		tell();
	}

	function outline(context, block, colour, left) {
		const at = now();
		if (block === null || block < top * at.row || block >= shownEnd()) return;
		const cell = Math.floor(block / at.cellBlocks) - top * at.columns;
		const [x, y] = [left + (cell % at.columns) * at.width, 20 + Math.floor(cell / at.columns) * at.height];
		context.strokeStyle = colours[colour];
		context.lineWidth = 2;
		context.strokeRect(x - 1, y - 1, at.width + 1, at.height + 1);
	}

	// The whole device in one line, with a frame around what is shown.
	function drawStrip() {
		const { context } = prepare(element("strip"), 26);
		const inner = now().columns * now().width;
		const bar = 2;
		const bars = Math.max(1, Math.floor(inner / bar));
		const blocks = facts.base_blocks / bars;
		const at = steps(Math.max(1, blocks));
		context.fillStyle = colours.clean;
		context.fillRect(GUTTER, 5, inner, 16);
		let before = rank(0);
		for (let index = 0; index < bars; index++) {
			const end = rank(Math.ceil((index + 1) * blocks));
			const counts = between(before, end);
			before = end;
			const colour = colourOf(counts, at);
			if (colour === "clean") continue;
			context.fillStyle = colours[colour];
			const tall = colour === "lost" || colour === "pending";
			context.fillRect(GUTTER + index * bar, tall ? 2 : 5, bar, tall ? 22 : 16);
		}
		const [from, to] = [top * now().row, shownEnd()].map((block) => GUTTER + (block / facts.base_blocks) * inner);
		context.strokeStyle = colours.ink;
		context.lineWidth = 1.5;
		context.strokeRect(from - 1, 1, Math.max(4, to - from + 2), 24);
	}

	// Words for what is shown, and for what is pointed at.
	function tell() {
		const at = now();
		const each = at.cellBlocks === 1 ? "1 block" : `${count(at.cellBlocks)} blocks`;
		element("scale").textContent = `a cell is ${each} (${size(at.cellBlocks)})`;
		const block = pointed ?? cursor;
		element("said").textContent = block === null ? describeView() : describe(block);
		element("in").disabled = level === levels.length - 1;
		element("out").disabled = element("whole").disabled = level === 0;
		tellLegend();
	}

	function tellLegend() {
		const at = [1, ...steps(now().cellBlocks), Infinity];
		element("legend").querySelectorAll(".shade").forEach((item) => item.remove());
		let place = element("legend").firstElementChild;
		let said = false;
		for (let index = 0; index < 4; index++) {
			const [from, to] = [at[index], at[index + 1]];
			if (from >= to) continue;
			const item = document.createElement("li");
			item.className = "shade";
			const swatch = document.createElement("i");
			swatch.className = `remapped-${index + 1}`;
			let words = to === Infinity ? `${count(from)} and more` : from + 1 === to ? count(from) : `${count(from)} to ${count(to - 1)}`;
			if (now().cellBlocks === 1) words = "";
			item.append(swatch, `${words}${said ? "" : " remapped"}`);
			said = true;
			place.after(item);
			place = item;
		}
	}

	const states = (counts) => counts.map((number, state) => `${count(number)} ${STATES[state]}`).join(", ");

	function describeView() {
		const [first, end] = [top * now().row, shownEnd()];
		return `Shown: LBA ${count(first)} to ${count(end - 1)}, ${size(end - first)}\n${states(between(rank(first), rank(end)))}`;
	}

	function describe(block) {
		const { cellBlocks } = now();
		const first = Math.floor(block / cellBlocks) * cellBlocks;
		const end = Math.min(first + cellBlocks, facts.base_blocks);
		const index = search(first);
		const found = index < extents.count && extents.starts[index] < end;
		if (end - first === 1) return `LBA ${count(first)}, byte ${exactByte(first)}\n${found ? extentAt(index, first) : "on the base, as it should be"}`;
		const counts = between(rank(first), rank(end));
		const rest = found ? `; first: LBA ${count(Math.max(first, extents.starts[index]))}, ${extentAt(index, Math.max(first, extents.starts[index]))}` : "";
		return `LBA ${count(first)} to ${count(end - 1)}, from byte ${exactByte(first)} on, ${plural(end - first)}\n${states(counts)}${rest}`;
	}

	function extentAt(index, block) {
		const state = extents.states[index];
		if (state === 1) return "pending: it cannot be read, and its next write goes to the spare";
		const spare = extents.spares[index] + block - extents.starts[index];
		return state === 0 ? `remapped to block ${count(spare)} of the spare` : `lost: reads fail until it is written; block ${count(spare)} of the spare is kept for it`;
	}

	// The block under the pointer.
	function blockAt(event) {
		const box = cells.getBoundingClientRect();
		const at = now();
		const column = Math.floor((event.clientX - box.left - GUTTER) / at.width);
		const row = Math.floor((event.clientY - box.top - 20) / at.height);
		if (column < 0 || column >= at.columns || row < 0 || row >= shownRows()) return null;
		const block = (top + row) * at.row + column * at.cellBlocks;
		return block < facts.base_blocks ? { block, row } : null;
	}

	// The next extent, or the one before, of those that are looked for.
	function jump(forward) {
		const kind = element("kind").value;
		const wanted = (index) => kind === "any" || extents.states[index] === 2 || (kind === "pending" && extents.states[index] === 1);
		const { cellBlocks } = now();
		const cell = cursor === null ? null : Math.floor(cursor / cellBlocks) * cellBlocks;
		let index;
		if (forward) {
			index = cell === null ? 0 : search(cell + cellBlocks);
			if (cell !== null && index < extents.count && extents.starts[index] < cell + cellBlocks) index++;
		} else {
			index = (cell === null ? extents.count : search(cell)) - 1;
		}
		const step = forward ? 1 : -1;
		while (index >= 0 && index < extents.count && !wanted(index)) index += step;
		if (index >= 0 && index < extents.count) show(extents.starts[index]);
		else element("said").textContent = forward ? "There is none behind this." : "There is none before this.";
	}

	let dragged = null;
	cells.addEventListener("wheel", (event) => {
		const found = blockAt(event) ?? { block: top * now().row, row: 0 };
		if (!zoom(level + (event.deltaY < 0 ? 1 : -1), found.block, found.row)) return;
		event.preventDefault();
		// Where it is now, as rows are broken elsewhere.
		cursor = found.block;
		pointed = null;
		element("tip").hidden = true;
		draw();
	}, { passive: false });
	cells.addEventListener("pointerdown", (event) => {
		dragged = { y: event.clientY, top, moved: false };
		cells.setPointerCapture(event.pointerId);
	});
	cells.addEventListener("pointermove", (event) => {
		if (dragged) {
			const rows = Math.round((dragged.y - event.clientY) / now().height);
			dragged.moved ||= Math.abs(dragged.y - event.clientY) > 4;
			const to = clampTop(dragged.top + rows);
			if (dragged.moved && to !== top) {
				top = to;
				draw();
			}
			return;
		}
		const found = blockAt(event);
		const block = found && found.block;
		if (block !== pointed) {
			pointed = block;
			draw();
		}
		showTip(event);
	});
	// The same words where the eyes are.
	function showTip(event) {
		const tip = element("tip");
		tip.hidden = pointed === null;
		if (tip.hidden) return;
		tip.textContent = element("said").textContent;
		const below = event.clientY + 20 + tip.offsetHeight < window.innerHeight;
		tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8))}px`;
		tip.style.top = `${below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 12}px`;
	}
	cells.addEventListener("pointerup", (event) => {
		const found = blockAt(event);
		if (dragged && !dragged.moved && found) show(found.block);
		dragged = null;
	});
	cells.addEventListener("pointercancel", () => { dragged = null; });
	cells.addEventListener("pointerleave", () => {
		pointed = null;
		element("tip").hidden = true;
		draw();
	});
	cells.addEventListener("dblclick", (event) => {
		const found = blockAt(event);
		if (found) inspect(found.block);
	});

	// Down to single blocks, at the first extent of the cell if it has one.
	function inspect(block) {
		const index = search(block);
		const found = index < extents.count && extents.starts[index] < block + now().cellBlocks;
		const target = found ? Math.max(block, extents.starts[index]) : block;
		cursor = target;
		pointed = null;
		zoom(levels.length - 1, target, Math.floor(levels[levels.length - 1].rows / 2));
		show(target);
	}

	const whole = () => zoom(0, 0, 0);
	const keys = {
		"+": () => zoomMiddle(1),
		"=": () => zoomMiddle(1),
		"-": () => zoomMiddle(-1),
		0: whole,
		n: () => jump(true),
		p: () => jump(false),
		ArrowLeft: () => show((cursor ?? top * now().row) - now().cellBlocks),
		ArrowRight: () => show((cursor ?? top * now().row - now().cellBlocks) + now().cellBlocks),
		ArrowUp: () => show((cursor ?? top * now().row) - now().row),
		ArrowDown: () => show((cursor ?? top * now().row - now().row) + now().row),
		PageUp: () => show((cursor ?? top * now().row) - now().row * now().rows),
		PageDown: () => show((cursor ?? top * now().row) + now().row * now().rows),
		Home: () => show(0),
		End: () => show(facts.base_blocks - 1),
		Enter: () => inspect(cursor ?? top * now().row),
		Escape: () => { cursor = pointed = null; draw(); },
	};
	document.addEventListener("keydown", (event) => {
		const typing = /^(INPUT|SELECT|BUTTON)$/.test(event.target.tagName);
		const anywhere = "+=-0np".includes(event.key) && event.target.tagName !== "INPUT" && event.target.tagName !== "SELECT";
		const act = keys[event.key];
		if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
		if (anywhere || (!typing && document.activeElement === cells)) {
			event.preventDefault();
			act();
		}
	});
	element("in").addEventListener("click", () => zoomMiddle(1));
	element("out").addEventListener("click", () => zoomMiddle(-1));
	element("whole").addEventListener("click", whole);
	element("next").addEventListener("click", () => jump(true));
	element("previous").addEventListener("click", () => jump(false));
	element("go").addEventListener("change", (event) => {
		const text = event.target.value.replace(/[\s,_]/g, "");
		const wrong = !/^\d+$/.test(text) || Number(text) >= facts.base_blocks;
		event.target.classList.toggle("wrong", wrong);
		if (!wrong) {
			level = levels.length - 1;
			show(Number(text));
		}
	});
	const goTo = (event) => {
		const inner = now().columns * now().width;
		const part = (event.clientX - element("strip").getBoundingClientRect().left - GUTTER) / inner;
		top = clampTop((part * facts.base_blocks) / now().row - now().rows / 2);
		draw();
	};
	element("strip").addEventListener("pointerdown", goTo);
	element("strip").addEventListener("pointermove", (event) => { if (event.buttons) goTo(event); });

	// The spare: its cells were counted when the page was made.
	const spare = element("on-spare");
	let spareWidth = 4;
	function drawSpare() {
		const rows = Math.ceil(facts.spare.cells.length / facts.columns);
		spareWidth = Math.max(2, Math.floor(((spare.clientWidth - 2 * GUTTER) / facts.columns) * 2) / 2);
		const { context } = prepare(spare, rows * spareWidth + 2);
		const at = steps(facts.spare.cell_blocks);
		facts.spare.cells.forEach(([used, bad, lost], index) => {
			const colour = bad ? "bad" : colourOf([used, 0, lost], at);
			drawCell(context, colour, GUTTER + (index % facts.columns) * spareWidth, Math.floor(index / facts.columns) * spareWidth, spareWidth, spareWidth);
		});
		context.font = "12px system-ui, sans-serif";
		context.textAlign = "right";
		context.textBaseline = "top";
		context.fillStyle = colours.faint;
		context.fillText(count(facts.spare.first), GUTTER - 10, 0);
	}
	spare.addEventListener("pointermove", (event) => {
		const box = spare.getBoundingClientRect();
		const [column, row] = [(event.clientX - box.left - GUTTER) / spareWidth, (event.clientY - box.top) / spareWidth].map(Math.floor);
		const index = row * facts.columns + column;
		const cell = column >= 0 && column < facts.columns ? facts.spare.cells[index] : undefined;
		if (!cell) return;
		const start = index * facts.spare.cell_blocks;
		const end = Math.min(start + facts.spare.cell_blocks, facts.spare.blocks);
		const [used, bad, lost] = cell;
		const first = facts.spare.first + start;
		element("spare-said").textContent = `Block ${count(first)} to ${count(facts.spare.first + end - 1)} of the spare: ${count(used)} used, ${count(lost)} without their data, ${count(bad)} bad, ${count(end - start - used - bad - lost)} free`;
	});
	spare.addEventListener("pointerleave", () => { element("spare-said").textContent = ""; });

	function redraw() {
		readColours();
		const block = top * now().row;
		const whole = level === 0;
		measure();
		level = whole ? 0 : Math.min(level, levels.length - 1);
		top = clampTop(block / now().row);
		draw();
		drawSpare();
	}
	measure();
	redraw();
	window.addEventListener("resize", redraw);
	window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
	// When everything was drawn, in milliseconds since the page was asked for.
	document.body.dataset.drawn = Math.round(performance.now());
})();
