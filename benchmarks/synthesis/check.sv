// Plays a stimulus file through one lane and prints y after every clock: `TOP, `PARAMS, `X, `W, `Y, `COUNT are defined
// on the command line. Runs on the RTL and on the synthesised netlist alike.
`timescale 1ns / 1ps
module check;
  reg clk = 0, clear = 1;
  reg [`X+`W-1:0] stimulus[0:`COUNT-1];
  reg [`X-1:0] x = 0;
  reg [`W-1:0] w = 0;
  wire [`Y-1:0] y;
  integer i;
  `TOP `PARAMS lane (.clk(clk), .enable(1'b1), .clear(clear), .x(x), .w(w), .y(y));
  always #5 clk = ~clk;
  initial begin
    $readmemh(`STIMULUS, stimulus);
    repeat (32) @(posedge clk);
    #1 clear = 0;
    for (i = 0; i < `COUNT; i = i + 1) begin
      {x, w} = stimulus[i];
      @(posedge clk) #1 $display("%h", y);
    end
    $finish;
  end
endmodule
