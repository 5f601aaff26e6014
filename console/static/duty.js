// The duty sheet: its one button.
document.getElementById("print").onclick = () => print();
